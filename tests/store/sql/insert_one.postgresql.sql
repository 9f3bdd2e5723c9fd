INSERT INTO jobqueue_jobs (task, queue, state, priority, args, tags, run_at, max_attempts, timeout, backoff,
    unique_key, unique_until, deadline_at)
VALUES (CAST(:in_task::VARCHAR AS TEXT), CAST(:in_queue::VARCHAR AS TEXT), CASE
    WHEN (CAST(:in_delay AS DOUBLE PRECISION) > 0 OR :in_at::TIMESTAMP WITH TIME ZONE IS NOT NULL AND :in_at::TIMESTAMP WITH TIME ZONE > clock_timestamp()) THEN 'scheduled'
    ELSE 'available' END, CAST(:in_priority::INTEGER AS INTEGER), CAST(:in_args::VARCHAR AS TEXT),
    CAST(:in_tags::VARCHAR AS TEXT),
    coalesce(:in_at::TIMESTAMP WITH TIME ZONE, CASE WHEN (CAST(:in_delay AS DOUBLE PRECISION) IS NOT NULL) THEN clock_timestamp() + CAST(CAST(:in_delay AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second' ELSE clock_timestamp() END),
    CAST(:in_max_attempts::INTEGER AS INTEGER), CAST(:in_timeout AS DOUBLE PRECISION),
    CAST(:in_backoff::VARCHAR AS TEXT), CAST(:in_unique_key::VARCHAR AS TEXT),
    CAST(:in_unique_until::VARCHAR AS TEXT), CASE
    WHEN (CAST(:in_deadline AS DOUBLE PRECISION) IS NOT NULL) THEN clock_timestamp() + CAST(CAST(:in_deadline AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
    ELSE NULL END)
ON CONFLICT DO NOTHING
RETURNING jobqueue_jobs.id, jobqueue_jobs.unique_key;
