WITH RECURSIVE level(name, priority) AS (
    SELECT anon_1.name AS name,
        (SELECT jobqueue_jobs.priority FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
            AND jobqueue_jobs.lane IS NULL
            AND jobqueue_jobs.queue = anon_1.name ORDER BY jobqueue_jobs.priority LIMIT 1) AS priority
    FROM unnest((SELECT CAST(:in_name::VARCHAR AS TEXT[]) AS anon_2)) WITH ORDINALITY AS anon_1(name, place)
    WHERE NOT (EXISTS (SELECT * FROM jobqueue_queues WHERE jobqueue_queues.name = anon_1.name
        AND (jobqueue_queues.paused_at IS NOT NULL OR jobqueue_queues.max_running IS NOT NULL OR jobqueue_queues.rate_count IS NOT NULL OR jobqueue_queues.fair = 1))) UNION ALL
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
