SELECT '[' || group_concat(found.claim) || ']' AS anon_1
FROM (
    SELECT CASE
        WHEN (coalesce(jobqueue_jobs.base_max_attempts, jobqueue_jobs.max_attempts) != 1
            AND jobqueue_jobs.snoozes + jobqueue_jobs.crashes + jobqueue_jobs.child_crashes = 0
            AND coalesce(jobqueue_jobs.unique_until, '') != 'started'
            AND coalesce(jobqueue_jobs.backoff, NULL) IS NULL
            AND coalesce(jobqueue_jobs.deadline_at, jobqueue_jobs.scheduled_for, jobqueue_jobs.expires_at) IS NULL) THEN json_array(jobqueue_jobs.id,
            jobqueue_jobs.fence + 1, CAST(jobqueue_jobs.task AS TEXT), CAST(jobqueue_jobs.queue AS TEXT),
            CAST(CASE WHEN (length(jobqueue_jobs.args) <= 10000) THEN jobqueue_jobs.args END AS TEXT),
            jobqueue_jobs.attempt + 1, jobqueue_jobs.max_attempts, jobqueue_jobs.run_at || 'Z',
            (SELECT clock_timestamp() AS anon_2) || 'Z', jobqueue_jobs.timeout,
            CAST(jobqueue_jobs.headers AS TEXT), jobqueue_jobs.priority, :in_worker)
        ELSE json_array(jobqueue_jobs.id, jobqueue_jobs.fence + 1, CAST(jobqueue_jobs.task AS TEXT),
            CAST(jobqueue_jobs.queue AS TEXT),
            CAST(CASE WHEN (length(jobqueue_jobs.args) <= 10000) THEN jobqueue_jobs.args END AS TEXT),
            jobqueue_jobs.attempt + 1, jobqueue_jobs.max_attempts, jobqueue_jobs.run_at || 'Z',
            (SELECT clock_timestamp() AS anon_2) || 'Z', jobqueue_jobs.timeout,
            CAST(jobqueue_jobs.headers AS TEXT), jobqueue_jobs.priority, :in_worker,
            CAST(jobqueue_jobs.backoff AS TEXT), CAST(jobqueue_jobs.snoozes AS INTEGER),
            CAST(jobqueue_jobs.crashes AS INTEGER), CAST(jobqueue_jobs.child_crashes AS INTEGER),
            json(CASE WHEN (coalesce(jobqueue_jobs.base_max_attempts, jobqueue_jobs.max_attempts) = 1
                OR jobqueue_jobs.crashes > 0 OR coalesce(jobqueue_jobs.unique_until, '') = 'started'
                OR coalesce(jobqueue_jobs.expires_at, NULL) IS NOT NULL) THEN 'true' ELSE 'false' END),
            json(CASE WHEN (coalesce(jobqueue_jobs.base_max_attempts,
                jobqueue_jobs.max_attempts) = 1) THEN 'true' ELSE 'false' END),
            json(CASE WHEN (coalesce(jobqueue_jobs.unique_until, '') = 'started'
                AND jobqueue_jobs.key_released = 0) THEN 'true' ELSE 'false' END),
            jobqueue_jobs.deadline_at || 'Z', jobqueue_jobs.scheduled_for || 'Z',
            jobqueue_jobs.expires_at || 'Z') END AS claim
    FROM jobqueue_jobs
    WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane IS NULL
        AND jobqueue_jobs.queue = :in_queue::VARCHAR
        AND (jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id) > (:in_priority::INTEGER,
            :in_cursor_run_at::TIMESTAMP WITH TIME ZONE, :in_cursor_id::BIGINT)
        AND (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
            OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
                AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag'
                AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)))
        AND NOT (EXISTS (SELECT * FROM jobqueue_queues WHERE jobqueue_queues.name = :in_queue::VARCHAR
            AND (jobqueue_queues.paused_at IS NOT NULL OR jobqueue_queues.max_running IS NOT NULL OR jobqueue_queues.rate_count IS NOT NULL OR jobqueue_queues.fair = 1)))
        AND (EXISTS (SELECT * FROM jobqueue_workers WHERE jobqueue_workers.id = :in_worker::BIGINT))
    ORDER BY jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id
    LIMIT :in_limit::INTEGER
    FOR UPDATE OF jobqueue_jobs SKIP LOCKED
) AS found;
