SELECT jobqueue_jobs.id, jobqueue_jobs.lane, jobqueue_jobs.priority, jobqueue_jobs.run_at,
    jobqueue_jobs.lane_limit, jobqueue_jobs.lane_weight, jobqueue_jobs.lane_strict, NULL AS running,
    NULL AS places, NULL AS next_id, NULL AS next_limit
FROM jobqueue_jobs
WHERE jobqueue_jobs.id IN (SELECT found.id FROM (
    SELECT anon_1."key" AS place, anon_1.value AS name
    FROM json_each(:in_rows) AS anon_1
) AS input JOIN jobqueue_jobs AS found ON found.id IN (SELECT other.id FROM jobqueue_jobs AS other WHERE other.state = 'available'
    AND other.lane = input.name AND other.queue = :in_queue ORDER BY other.priority, other.run_at,
    other.id LIMIT :in_limit OFFSET 0)) UNION ALL
SELECT NULL AS id, counts.lane, NULL AS priority, NULL AS run_at, NULL AS lane_limit, NULL AS lane_weight,
    NULL AS lane_strict, counts.running, counts.places, counts.next_id,
    (SELECT jobqueue_jobs.lane_limit FROM jobqueue_jobs WHERE jobqueue_jobs.id = counts.next_id) AS next_limit
FROM (
    SELECT jobqueue_jobs.lane AS lane,
        sum(CASE WHEN (jobqueue_jobs.state = 'running') THEN 1 ELSE 0 END) AS running, count(*) AS places,
        min(CASE
            WHEN (jobqueue_jobs.state = 'available' AND jobqueue_jobs.queue = :in_queue) THEN jobqueue_jobs.id END) AS next_id
    FROM jobqueue_jobs
    WHERE lane IS NOT NULL AND fence > 0
        AND (state = 'running' OR lane_strict = 1 AND (state = 'scheduled' OR state = 'available'))
        AND jobqueue_jobs.lane IN (SELECT input.name FROM (
        SELECT anon_1."key" AS place, anon_1.value AS name
        FROM json_each(:in_rows) AS anon_1
    ) AS input) GROUP BY jobqueue_jobs.lane
) AS counts;
