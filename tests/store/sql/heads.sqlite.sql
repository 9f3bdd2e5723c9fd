SELECT jobqueue_jobs.queue, jobqueue_jobs.priority,
    EXISTS (SELECT * FROM jobqueue_pauses WHERE jobqueue_pauses.name IS NOT NULL) AS is_any_paused
FROM jobqueue_jobs
WHERE jobqueue_jobs.id IN (SELECT found.id FROM (
    SELECT anon_1."key" AS place, anon_1.value AS name
    FROM json_each(:in_rows) AS anon_1
) AS input JOIN jobqueue_jobs AS found ON found.id IN (SELECT other.id FROM jobqueue_jobs AS other WHERE other.state = 'available'
    AND other.lane IS NULL AND other.queue = input.name ORDER BY other.priority, other.run_at,
    other.id LIMIT 1 OFFSET 0))
ORDER BY jobqueue_jobs.queue;
