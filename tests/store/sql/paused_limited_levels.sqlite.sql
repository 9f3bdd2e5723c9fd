WITH RECURSIVE level(name, priority) AS (
    SELECT input.name AS name,
        (SELECT jobqueue_jobs.priority FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
            AND jobqueue_jobs.lane IS NULL
            AND jobqueue_jobs.queue = input.name ORDER BY jobqueue_jobs.priority LIMIT 1 OFFSET 0) AS priority
    FROM (
        SELECT anon_1."key" AS place, anon_1.value AS name
        FROM json_each(:in_rows) AS anon_1
    ) AS input UNION ALL
    SELECT level.name AS name,
        (SELECT jobqueue_jobs.priority FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
            AND jobqueue_jobs.lane IS NULL AND jobqueue_jobs.queue = level.name
            AND jobqueue_jobs.priority > level.priority ORDER BY jobqueue_jobs.priority LIMIT 1 OFFSET 0) AS anon_2
    FROM level
    WHERE level.priority IS NOT NULL
)
SELECT level.name, level.priority
FROM level
WHERE level.priority IS NOT NULL;
