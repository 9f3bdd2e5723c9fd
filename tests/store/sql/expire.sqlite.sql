UPDATE jobqueue_jobs
SET state='cancelled', reason='expired', finished_at=strftime('%Y-%m-%d %H:%M:%f000', 'now')
WHERE jobqueue_jobs.id IN (SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE expires_at IS NOT NULL
    AND attempt = 0 AND snoozes = 0 AND crashes = 0 AND (state = 'scheduled' OR state = 'available')
    AND jobqueue_jobs.expires_at <= (SELECT strftime('%Y-%m-%d %H:%M:%f000',
        'now') AS anon_1) ORDER BY jobqueue_jobs.expires_at LIMIT :in_limit OFFSET 0)
RETURNING id, task, queue, attempt;
