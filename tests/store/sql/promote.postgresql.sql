UPDATE jobqueue_jobs
SET state='available'
WHERE jobqueue_jobs.id = ANY (array((SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'scheduled'
    AND jobqueue_jobs.run_at <= (SELECT clock_timestamp() AS anon_1)
    AND jobqueue_jobs.awaited_key IS NULL ORDER BY jobqueue_jobs.run_at LIMIT :in_limit::INTEGER FOR UPDATE SKIP LOCKED)))
RETURNING jobqueue_jobs.queue;
