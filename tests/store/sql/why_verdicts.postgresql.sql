SELECT jobqueue_jobs.state, jobqueue_jobs.fence, jobqueue_jobs.priority, jobqueue_jobs.run_at AS run_at,
    jobqueue_jobs.state = 'available' AS may_claim, expires_at IS NOT NULL AND attempt = 0 AND snoozes = 0
    AND crashes = 0 AND (state = 'scheduled' OR state = 'available')
    AND jobqueue_jobs.expires_at <= clock_timestamp() AS has_expired, jobqueue_jobs.lane IS NULL AS is_plain,
    EXISTS (SELECT * FROM jobqueue_queues WHERE jobqueue_queues.name = jobqueue_jobs.queue
        AND (jobqueue_queues.max_running IS NOT NULL OR jobqueue_queues.rate_count IS NOT NULL OR jobqueue_queues.fair = 1)) AS queue_limited,
    jobqueue_jobs.worker_id, jobqueue_jobs.lane_limit,
    coalesce(jobqueue_jobs.lane_strict, 0) = 1 AS is_strict, jobqueue_jobs.progress_at,
    jobqueue_jobs.expires_at, clock_timestamp() AS present
FROM jobqueue_jobs
WHERE jobqueue_jobs.id = :in_job::BIGINT;
