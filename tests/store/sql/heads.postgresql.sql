SELECT jobqueue_jobs.queue, jobqueue_jobs.priority,
    EXISTS (SELECT * FROM jobqueue_pauses WHERE jobqueue_pauses.name IS NOT NULL) AS is_any_paused
FROM jobqueue_jobs
WHERE jobqueue_jobs.id = ANY (array((SELECT each.id FROM unnest((SELECT CAST(:in_name::VARCHAR AS TEXT[]) AS anon_2)) WITH ORDINALITY AS anon_1(name, place) JOIN LATERAL (SELECT other.id AS id FROM jobqueue_jobs AS other WHERE other.state = 'available' AND other.lane IS NULL AND other.queue = anon_1.name ORDER BY other.priority, other.run_at, other.id LIMIT 1) AS each ON true)))
ORDER BY jobqueue_jobs.queue;
