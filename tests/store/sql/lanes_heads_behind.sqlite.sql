SELECT jobqueue_jobs.id, jobqueue_jobs.lane, jobqueue_jobs.priority, jobqueue_jobs.run_at,
    jobqueue_jobs.lane_limit, jobqueue_jobs.lane_weight, jobqueue_jobs.lane_strict
FROM jobqueue_jobs
WHERE jobqueue_jobs.id IN (SELECT found.id FROM (
    SELECT anon_1."key" AS place, anon_1.value AS name
    FROM json_each(:in_rows) AS anon_1
) AS input JOIN jobqueue_jobs AS found ON found.id IN (SELECT some.id FROM (
    SELECT other.id AS id, other.priority AS priority, other.run_at AS run_at, other.lane_limit AS lane_limit,
        other.lane_strict AS lane_strict
    FROM jobqueue_jobs AS other
    WHERE other.state = 'available' AND other.lane = input.name AND other.queue = :in_queue
    ORDER BY other.priority, other.run_at, other.id
    LIMIT 10000 OFFSET 0
) AS some WHERE coalesce(CASE WHEN (CAST(some.lane_limit AS INTEGER) != some.lane_limit) THEN 0
    ELSE CAST(some.lane_limit AS INTEGER) END,
    1) > 0 OR some.lane_strict = 1 ORDER BY some.priority, some.run_at, some.id LIMIT :in_limit OFFSET 0));
