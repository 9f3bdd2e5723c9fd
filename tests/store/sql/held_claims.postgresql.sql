SELECT jobqueue_jobs.id, jobqueue_jobs.fence, jobqueue_jobs.task, jobqueue_jobs.queue, jobqueue_jobs.args,
    jobqueue_jobs.attempt, jobqueue_jobs.max_attempts, jobqueue_jobs.run_at, jobqueue_jobs.started_at,
    jobqueue_jobs.timeout, jobqueue_jobs.backoff, jobqueue_jobs.snoozes, jobqueue_jobs.crashes,
    jobqueue_jobs.deadline_at, jobqueue_jobs.worker_id,
    coalesce(jobqueue_jobs.base_max_attempts, jobqueue_jobs.max_attempts) = 1 OR jobqueue_jobs.crashes > 0
    OR coalesce(jobqueue_jobs.unique_until, '') = 'started'
    OR coalesce(jobqueue_jobs.expires_at, NULL) IS NOT NULL AS immediate_only,
    coalesce(jobqueue_jobs.base_max_attempts, jobqueue_jobs.max_attempts) = 1 AS at_most_once,
    jobqueue_jobs.child_crashes, coalesce(jobqueue_jobs.unique_until, '') = 'started'
    AND jobqueue_jobs.key_released = 0 AS releases_key_on_start, jobqueue_jobs.scheduled_for,
    jobqueue_jobs.headers, jobqueue_jobs.expires_at, jobqueue_jobs.priority
FROM jobqueue_jobs
WHERE jobqueue_jobs.worker_id = :in_worker::BIGINT AND jobqueue_jobs.id IN (:in_ids);
