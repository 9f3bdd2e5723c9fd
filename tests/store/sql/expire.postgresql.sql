UPDATE jobqueue_jobs
SET state='cancelled', reason='expired', finished_at=clock_timestamp()
WHERE jobqueue_jobs.id = ANY (array((SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE expires_at IS NOT NULL
    AND attempt = 0 AND snoozes = 0 AND crashes = 0 AND (state = 'scheduled' OR state = 'available')
    AND jobqueue_jobs.expires_at <= (SELECT clock_timestamp() AS anon_1) ORDER BY jobqueue_jobs.expires_at LIMIT :in_limit::INTEGER FOR UPDATE SKIP LOCKED)))
RETURNING jobqueue_jobs.id, jobqueue_jobs.task, jobqueue_jobs.queue, jobqueue_jobs.attempt;
