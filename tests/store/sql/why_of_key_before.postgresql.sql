SELECT count(*) AS before, CASE
    WHEN (count(*) <= 10000) THEN (SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
        AND jobqueue_jobs.lane = :in_lane::VARCHAR AND jobqueue_jobs.queue = :in_queue::VARCHAR
        AND (jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id) < (:in_own_priority::INTEGER, :in_own_run_at, :in_job::BIGINT) ORDER BY jobqueue_jobs.priority,
        jobqueue_jobs.run_at, jobqueue_jobs.id LIMIT 1 OFFSET 20000) END AS beyond
FROM (
    SELECT first.id AS id
    FROM (
        SELECT jobqueue_jobs.id AS id, jobqueue_jobs.task AS task, jobqueue_jobs.tags AS tags,
            jobqueue_jobs.lane_limit AS lane_limit, jobqueue_jobs.lane_strict AS lane_strict
        FROM jobqueue_jobs
        WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane = :in_lane::VARCHAR
            AND jobqueue_jobs.queue = :in_queue::VARCHAR
            AND (jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id) < (:in_own_priority::INTEGER,
                :in_own_run_at, :in_job::BIGINT)
        ORDER BY jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id
        LIMIT 20000
    ) AS first
    WHERE ((NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
        OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task' AND jobqueue_pauses.name = first.task OR jobqueue_pauses.kind = 'tag' AND replace(first.tags,
            '"' || jobqueue_pauses.name || '"', '') != first.tags)))
        AND coalesce(CASE WHEN (CAST(first.lane_limit AS INTEGER) != first.lane_limit) THEN 0 ELSE CAST(first.lane_limit AS INTEGER) END, 1) > 0
        OR first.lane_strict = 1)
        AND (:in_strict::INTEGER = 1 OR first.lane_strict = 1 OR first.lane_limit IS NULL
            OR first.lane_limit > :in_places::INTEGER)
    LIMIT 10001
) AS "some";
