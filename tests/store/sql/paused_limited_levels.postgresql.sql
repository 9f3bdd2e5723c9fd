WITH RECURSIVE level(name, priority) AS (
    SELECT anon_1.name AS name,
        (SELECT jobqueue_jobs.priority FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
            AND jobqueue_jobs.lane IS NULL
            AND jobqueue_jobs.queue = anon_1.name ORDER BY jobqueue_jobs.priority LIMIT 1) AS priority
    FROM unnest((SELECT CAST(:in_name::VARCHAR AS TEXT[]) AS anon_2)) WITH ORDINALITY AS anon_1(name,
        place) UNION ALL
    SELECT level.name AS name,
        (SELECT jobqueue_jobs.priority FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
            AND jobqueue_jobs.lane IS NULL AND jobqueue_jobs.queue = level.name
            AND jobqueue_jobs.priority > level.priority ORDER BY jobqueue_jobs.priority LIMIT 1) AS anon_3
    FROM level
    WHERE level.priority IS NOT NULL
)
SELECT level.name, level.priority
FROM level
WHERE level.priority IS NOT NULL;
