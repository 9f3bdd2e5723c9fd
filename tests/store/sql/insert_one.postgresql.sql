INSERT INTO jobqueue_jobs (task, queue, state, priority, args, tags, run_at, max_attempts, timeout, backoff,
    unique_key, unique_until)
VALUES (CAST(:in_task AS TEXT), CAST(:in_queue AS TEXT), CASE
    WHEN (CAST(:in_delay AS DOUBLE PRECISION) > 0 OR CAST(:in_at AS TIMESTAMP WITH TIME ZONE) IS NOT NULL AND CAST(:in_at AS TIMESTAMP WITH TIME ZONE) > clock_timestamp()) THEN 'scheduled'
    ELSE 'available' END, CAST(:in_priority AS INTEGER), CAST(:in_args AS TEXT), CAST(:in_tags AS TEXT),
    coalesce(CAST(:in_at AS TIMESTAMP WITH TIME ZONE), CASE WHEN (CAST(:in_delay AS DOUBLE PRECISION) IS NOT NULL) THEN clock_timestamp() + CAST(CAST(:in_delay AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second' ELSE clock_timestamp() END),
    CAST(:in_max_attempts AS INTEGER), CAST(:in_timeout AS DOUBLE PRECISION), CAST(:in_backoff AS TEXT),
    CAST(:in_unique_key AS TEXT), CAST(:in_unique_until AS TEXT))
ON CONFLICT DO NOTHING
RETURNING jobqueue_jobs.id, jobqueue_jobs.unique_key;
