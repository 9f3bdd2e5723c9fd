UPDATE jobqueue_jobs
SET state=CASE
    WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL
        OR jobqueue_jobs.started_at >= jobqueue_jobs.expires_at AND jobqueue_jobs.attempt = 1
        AND jobqueue_jobs.snoozes = 0 AND jobqueue_jobs.crashes = 0) THEN 'cancelled'
    WHEN (coalesce(jobqueue_jobs.base_max_attempts, jobqueue_jobs.max_attempts) = 1
        OR jobqueue_jobs.crashes >= 5 AND jobqueue_jobs.attempt >= jobqueue_jobs.max_attempts) THEN 'failed'
    ELSE 'available' END, attempt=CASE
    WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL
        OR jobqueue_jobs.started_at >= jobqueue_jobs.expires_at AND jobqueue_jobs.attempt = 1
        AND jobqueue_jobs.snoozes = 0 AND jobqueue_jobs.crashes = 0
        OR coalesce(jobqueue_jobs.base_max_attempts, jobqueue_jobs.max_attempts) = 1
        OR jobqueue_jobs.crashes >= 5 AND jobqueue_jobs.attempt >= jobqueue_jobs.max_attempts
        OR jobqueue_jobs.crashes >= 5) THEN jobqueue_jobs.attempt
    ELSE jobqueue_jobs.attempt - 1 END, crashes=(jobqueue_jobs.crashes + 1), fence=(jobqueue_jobs.fence + 1),
    worker_id=NULL, reason=CASE
    WHEN (jobqueue_jobs.started_at >= jobqueue_jobs.expires_at AND jobqueue_jobs.attempt = 1
        AND jobqueue_jobs.snoozes = 0 AND jobqueue_jobs.crashes = 0) THEN 'expired'
    ELSE 'worker lost' END, finished_at=CASE
    WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL
        OR jobqueue_jobs.started_at >= jobqueue_jobs.expires_at AND jobqueue_jobs.attempt = 1
        AND jobqueue_jobs.snoozes = 0 AND jobqueue_jobs.crashes = 0
        OR coalesce(jobqueue_jobs.base_max_attempts, jobqueue_jobs.max_attempts) = 1
        OR jobqueue_jobs.crashes >= 5
        AND jobqueue_jobs.attempt >= jobqueue_jobs.max_attempts) THEN clock_timestamp()
    ELSE NULL END
WHERE jobqueue_jobs.id = ANY (array((SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.worker_id BETWEEN 1
    AND 9223372036854775807
    AND NOT (EXISTS (SELECT * FROM jobqueue_workers WHERE jobqueue_workers.id = jobqueue_jobs.worker_id)) ORDER BY jobqueue_jobs.worker_id LIMIT :in_limit::INTEGER FOR UPDATE OF jobqueue_jobs SKIP LOCKED)))
RETURNING jobqueue_jobs.id, jobqueue_jobs.fence, jobqueue_jobs.task, jobqueue_jobs.queue, jobqueue_jobs.state,
    CASE
    WHEN (jobqueue_jobs.state = 'available' AND jobqueue_jobs.crashes <= 5) THEN jobqueue_jobs.attempt + 1
    ELSE jobqueue_jobs.attempt END AS attempt, jobqueue_jobs.worker, jobqueue_jobs.started_at,
    jobqueue_jobs.lane;
