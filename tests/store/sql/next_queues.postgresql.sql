WITH RECURSIVE found(queue, priority) AS (
    SELECT first.queue AS queue, first.priority AS priority
    FROM (
        SELECT jobqueue_jobs.queue AS queue, jobqueue_jobs.priority AS priority
        FROM jobqueue_jobs
        WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane IS NULL
            AND jobqueue_jobs.queue >= :in_queue::VARCHAR
        ORDER BY jobqueue_jobs.queue, jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id
        LIMIT 1
    ) AS first UNION ALL
    SELECT jobqueue_jobs.queue AS queue, jobqueue_jobs.priority AS priority
    FROM found JOIN jobqueue_jobs ON jobqueue_jobs.id = (SELECT other.id FROM jobqueue_jobs AS other WHERE other.state = 'available'
        AND other.lane IS NULL AND other.queue > found.queue ORDER BY other.queue, other.priority,
        other.run_at, other.id LIMIT 1)
)
SELECT found.queue, found.priority,
    EXISTS (SELECT * FROM jobqueue_pauses WHERE jobqueue_pauses.name IS NOT NULL) AS is_any_paused
FROM found
LIMIT :in_limit::INTEGER;
