WITH RECURSIVE found(id, lane, queue, priority, run_at) AS (
    SELECT very_first.id AS id, very_first.lane AS lane, very_first.queue AS queue,
        very_first.priority AS priority, very_first.run_at AS run_at
    FROM (
        SELECT jobqueue_jobs.id AS id, jobqueue_jobs.lane AS lane, jobqueue_jobs.queue AS queue,
            jobqueue_jobs.priority AS priority, jobqueue_jobs.run_at AS run_at
        FROM jobqueue_jobs
        WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane IS NOT NULL
        ORDER BY jobqueue_jobs.queue, jobqueue_jobs.lane, jobqueue_jobs.priority, jobqueue_jobs.run_at,
            jobqueue_jobs.id
        LIMIT 1
    ) AS very_first UNION ALL
    SELECT jobqueue_jobs.id AS id, jobqueue_jobs.lane AS lane, jobqueue_jobs.queue AS queue,
        jobqueue_jobs.priority AS priority, jobqueue_jobs.run_at AS run_at
    FROM found JOIN jobqueue_jobs ON jobqueue_jobs.id = (SELECT other.id FROM jobqueue_jobs AS other WHERE other.state = 'available'
        AND other.lane IS NOT NULL
        AND (other.queue, other.lane, other.priority, other.run_at) > (found.queue || '', found.lane || '', 2147483647, :in_last_instant::TIMESTAMP WITH TIME ZONE) ORDER BY other.queue,
        other.lane, other.priority, other.run_at, other.id LIMIT 1)
)
SELECT found.id, found.lane, found.queue, found.priority, found.run_at,
    EXISTS (SELECT * FROM jobqueue_pauses WHERE jobqueue_pauses.name IS NOT NULL) AS is_any_paused
FROM found
WHERE NOT (EXISTS (SELECT * FROM jobqueue_pauses WHERE jobqueue_pauses.name IS NOT NULL))
    OR (EXISTS (SELECT first.id FROM (
    SELECT jobqueue_jobs.id AS id, jobqueue_jobs.task AS task, jobqueue_jobs.tags AS tags,
        jobqueue_jobs.lane_limit AS lane_limit
    FROM jobqueue_jobs
    WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.queue = found.queue
        AND jobqueue_jobs.lane = found.lane
    ORDER BY jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id
    LIMIT 10000
) AS first WHERE (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
    OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
        AND jobqueue_pauses.name = first.task OR jobqueue_pauses.kind = 'tag'
        AND replace(first.tags, '"' || jobqueue_pauses.name || '"', '') != first.tags))) AND coalesce(CASE
    WHEN (CAST(first.lane_limit AS INTEGER) != first.lane_limit) THEN 0
    ELSE CAST(first.lane_limit AS INTEGER) END,
    1) > 0)) OR (SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.queue = found.queue AND jobqueue_jobs.lane = found.lane ORDER BY jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id LIMIT 1 OFFSET 10000) IS NOT NULL;
