SELECT count(*) AS count_1
FROM (
    SELECT jobqueue_jobs.id AS id
    FROM jobqueue_jobs
    WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane = :in_lane
        AND ((NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
            OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task' AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag' AND replace(jobqueue_jobs.tags,
                '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)))
            AND coalesce(CASE WHEN (CAST(jobqueue_jobs.lane_limit AS INTEGER) != jobqueue_jobs.lane_limit) THEN 0 ELSE CAST(jobqueue_jobs.lane_limit AS INTEGER) END, 1) > 0
            OR jobqueue_jobs.lane_strict = 1)
        AND (:in_strict = 1 OR jobqueue_jobs.lane_strict = 1 OR jobqueue_jobs.lane_limit IS NULL
            OR jobqueue_jobs.lane_limit > :in_places)
        AND jobqueue_jobs.queue = :in_queue
        AND (jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id) < (:in_own_priority,
            :in_own_run_at, :in_job)
    ORDER BY jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id
    LIMIT 10001 OFFSET 0
) AS anon_1;
