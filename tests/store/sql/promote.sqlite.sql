UPDATE jobqueue_jobs
SET state='available'
WHERE jobqueue_jobs.id IN (SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'scheduled'
    AND jobqueue_jobs.run_at <= (SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now') AS anon_1)
    AND jobqueue_jobs.awaited_key IS NULL ORDER BY jobqueue_jobs.run_at LIMIT :in_limit OFFSET 0)
RETURNING queue;
