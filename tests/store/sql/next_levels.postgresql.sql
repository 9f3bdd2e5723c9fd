WITH RECURSIVE found(queue, priority, nth) AS (
    SELECT first.queue AS queue, first.priority AS priority, first.nth AS nth
    FROM (
        SELECT jobqueue_jobs.queue AS queue, jobqueue_jobs.priority AS priority, 1 AS nth
        FROM jobqueue_jobs
        WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane IS NULL
            AND (jobqueue_jobs.queue, jobqueue_jobs.priority, jobqueue_jobs.run_at,
                jobqueue_jobs.id) > (:in_queue::VARCHAR, :in_priority::INTEGER,
                :in_cursor_run_at::TIMESTAMP WITH TIME ZONE, :in_cursor_id::BIGINT)
            AND (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
                OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
                    AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag'
                    AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)))
        ORDER BY jobqueue_jobs.queue, jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id
        LIMIT 1
    ) AS first UNION ALL
    SELECT jobqueue_jobs.queue AS queue, jobqueue_jobs.priority AS priority, CASE
        WHEN (jobqueue_jobs.queue = found.queue) THEN found.nth + 1 ELSE 1 END AS anon_1
    FROM found JOIN jobqueue_jobs ON jobqueue_jobs.id = (SELECT other.id FROM jobqueue_jobs AS other WHERE other.state = 'available'
        AND other.lane IS NULL
        AND (other.queue, other.priority, other.run_at, other.id) > (found.queue || '', CASE WHEN (found.nth >= :in_per_queue::INTEGER) THEN 2147483647 ELSE found.priority END, :in_cursor_run_at::TIMESTAMP WITH TIME ZONE, :in_cursor_id::BIGINT)
        AND (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses)) OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
            AND jobqueue_pauses.name = other.task OR jobqueue_pauses.kind = 'tag'
            AND replace(other.tags, '"' || jobqueue_pauses.name || '"', '') != other.tags))) ORDER BY other.queue,
        other.priority, other.run_at, other.id LIMIT 1)
)
SELECT found.queue, found.priority, found.nth
FROM found
LIMIT :in_limit::INTEGER;
