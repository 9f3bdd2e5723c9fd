UPDATE jobqueue_jobs
SET state=CASE WHEN (CAST(:in_debounce AS DOUBLE PRECISION) IS NULL) THEN CASE
    WHEN (CAST(:in_delay AS DOUBLE PRECISION) > 0 OR :in_at::TIMESTAMP WITH TIME ZONE IS NOT NULL
        AND :in_at::TIMESTAMP WITH TIME ZONE > clock_timestamp()) THEN 'scheduled'
    ELSE 'available' END
    WHEN (jobqueue_jobs.attempt > 0 OR jobqueue_jobs.snoozes > 0
        OR jobqueue_jobs.crashes > 0) THEN jobqueue_jobs.state
    ELSE CASE
    WHEN (CASE
        WHEN (CAST(:in_max_wait AS DOUBLE PRECISION) IS NULL) THEN clock_timestamp() + CAST(CAST(:in_debounce AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
        WHEN (jobqueue_jobs.created_at + CAST(CAST(:in_max_wait AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second' > clock_timestamp() + CAST(CAST(:in_debounce AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second') THEN clock_timestamp() + CAST(CAST(:in_debounce AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
        ELSE jobqueue_jobs.created_at + CAST(CAST(:in_max_wait AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second' END > clock_timestamp()) THEN 'scheduled'
    ELSE 'available' END END, run_at=CASE
    WHEN (CAST(:in_debounce AS DOUBLE PRECISION) IS NULL) THEN coalesce(:in_at::TIMESTAMP WITH TIME ZONE, CASE
        WHEN (CAST(:in_delay AS DOUBLE PRECISION) IS NOT NULL) THEN clock_timestamp() + CAST(CAST(:in_delay AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
        ELSE clock_timestamp() END)
    WHEN (jobqueue_jobs.attempt > 0 OR jobqueue_jobs.snoozes > 0
        OR jobqueue_jobs.crashes > 0) THEN jobqueue_jobs.run_at
    ELSE CASE
    WHEN (CAST(:in_max_wait AS DOUBLE PRECISION) IS NULL) THEN clock_timestamp() + CAST(CAST(:in_debounce AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
    WHEN (jobqueue_jobs.created_at + CAST(CAST(:in_max_wait AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second' > clock_timestamp() + CAST(CAST(:in_debounce AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second') THEN clock_timestamp() + CAST(CAST(:in_debounce AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
    ELSE jobqueue_jobs.created_at + CAST(CAST(:in_max_wait AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second' END END
WHERE jobqueue_jobs.unique_key = :in_unique_key::VARCHAR
    AND (jobqueue_jobs.unique_until = 'deleted' OR jobqueue_jobs.unique_until = 'finished'
        AND jobqueue_jobs.state IN ('scheduled', 'available', 'running')
        OR jobqueue_jobs.unique_until = 'started' AND jobqueue_jobs.key_released = 0
        AND jobqueue_jobs.state IN ('scheduled', 'available', 'running'))
    AND jobqueue_jobs.state IN ('scheduled', 'available')
RETURNING jobqueue_jobs.id;
