WITH RECURSIVE found(id, lane, queue, task, tags, lane_limit) AS (
    SELECT very_first.id AS id, very_first.lane AS lane, very_first.queue AS queue, very_first.task AS task,
        very_first.tags AS tags, very_first.lane_limit AS lane_limit
    FROM (
        SELECT jobqueue_jobs.id AS id, jobqueue_jobs.lane AS lane, jobqueue_jobs.queue AS queue,
            jobqueue_jobs.task AS task, jobqueue_jobs.tags AS tags, jobqueue_jobs.lane_limit AS lane_limit
        FROM jobqueue_jobs
        WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane IS NOT NULL
        ORDER BY jobqueue_jobs.queue, jobqueue_jobs.lane, jobqueue_jobs.priority, jobqueue_jobs.run_at,
            jobqueue_jobs.id
        LIMIT 1 OFFSET 0
    ) AS very_first UNION ALL
    SELECT jobqueue_jobs.id AS id, jobqueue_jobs.lane AS lane, jobqueue_jobs.queue AS queue,
        jobqueue_jobs.task AS task, jobqueue_jobs.tags AS tags, jobqueue_jobs.lane_limit AS lane_limit
    FROM found JOIN jobqueue_jobs ON jobqueue_jobs.id = (SELECT other.id FROM jobqueue_jobs AS other WHERE other.state = 'available'
        AND other.lane IS NOT NULL
        AND (other.queue, other.lane, other.priority, other.run_at) > (found.queue || '', found.lane || '', 2147483647, :in_last_instant) ORDER BY other.queue,
        other.lane, other.priority, other.run_at, other.id LIMIT 1 OFFSET 0)
)
SELECT jobqueue_jobs.lane, jobqueue_jobs.queue, jobqueue_jobs.priority, jobqueue_jobs.run_at,
    (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
        OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
            AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag'
            AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)))
    AND coalesce(CASE WHEN (CAST(jobqueue_jobs.lane_limit AS INTEGER) != jobqueue_jobs.lane_limit) THEN 0
        ELSE CAST(jobqueue_jobs.lane_limit AS INTEGER) END, 1) > 0 AS is_open
FROM found JOIN jobqueue_jobs ON jobqueue_jobs.id = coalesce(CASE
    WHEN ((NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
        OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task' AND jobqueue_pauses.name = found.task OR jobqueue_pauses.kind = 'tag' AND replace(found.tags,
            '"' || jobqueue_pauses.name || '"', '') != found.tags))) AND coalesce(CASE
        WHEN (CAST(found.lane_limit AS INTEGER) != found.lane_limit) THEN 0
        ELSE CAST(found.lane_limit AS INTEGER) END, 1) > 0) THEN found.id
    ELSE (SELECT few.id FROM (
    SELECT jobqueue_jobs.id AS id, jobqueue_jobs.task AS task, jobqueue_jobs.tags AS tags,
        jobqueue_jobs.lane_limit AS lane_limit
    FROM jobqueue_jobs
    WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.queue = found.queue
        AND jobqueue_jobs.lane = found.lane
    ORDER BY jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id
    LIMIT 10 OFFSET 0
) AS few WHERE (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
    OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
        AND jobqueue_pauses.name = few.task OR jobqueue_pauses.kind = 'tag'
        AND replace(few.tags, '"' || jobqueue_pauses.name || '"', '') != few.tags))) AND coalesce(CASE
    WHEN (CAST(few.lane_limit AS INTEGER) != few.lane_limit) THEN 0 ELSE CAST(few.lane_limit AS INTEGER) END,
    1) > 0 LIMIT 1 OFFSET 0) END, found.id)
WHERE NOT (EXISTS (SELECT * FROM jobqueue_pauses WHERE jobqueue_pauses.name IS NOT NULL))
    OR (EXISTS (SELECT first.id FROM (
    SELECT jobqueue_jobs.id AS id, jobqueue_jobs.task AS task, jobqueue_jobs.tags AS tags,
        jobqueue_jobs.lane_limit AS lane_limit
    FROM jobqueue_jobs
    WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.queue = found.queue
        AND jobqueue_jobs.lane = found.lane
    ORDER BY jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id
    LIMIT 10000 OFFSET 0
) AS first WHERE (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
    OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
        AND jobqueue_pauses.name = first.task OR jobqueue_pauses.kind = 'tag'
        AND replace(first.tags, '"' || jobqueue_pauses.name || '"', '') != first.tags))) AND coalesce(CASE
    WHEN (CAST(first.lane_limit AS INTEGER) != first.lane_limit) THEN 0
    ELSE CAST(first.lane_limit AS INTEGER) END,
    1) > 0)) OR (SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.queue = found.queue AND jobqueue_jobs.lane = found.lane ORDER BY jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id LIMIT 1 OFFSET 10000) IS NOT NULL;
