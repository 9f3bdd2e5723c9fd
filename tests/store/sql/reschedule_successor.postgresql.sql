UPDATE jobqueue_jobs
SET state='scheduled', run_at=CASE
    WHEN (CAST(:in_debounce AS DOUBLE PRECISION) IS NULL) THEN coalesce(:in_at::TIMESTAMP WITH TIME ZONE, CASE
        WHEN (CAST(:in_delay AS DOUBLE PRECISION) IS NOT NULL) THEN clock_timestamp() + CAST(CAST(:in_delay AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
        ELSE clock_timestamp() END)
    WHEN (jobqueue_jobs.attempt > 0 OR jobqueue_jobs.snoozes > 0
        OR jobqueue_jobs.crashes > 0) THEN jobqueue_jobs.run_at
    ELSE CASE
    WHEN (CAST(:in_max_wait AS DOUBLE PRECISION) IS NULL) THEN clock_timestamp() + CAST(CAST(:in_debounce AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
    WHEN (jobqueue_jobs.created_at + CAST(CAST(:in_max_wait AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second' > clock_timestamp() + CAST(CAST(:in_debounce AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second') THEN clock_timestamp() + CAST(CAST(:in_debounce AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
    ELSE jobqueue_jobs.created_at + CAST(CAST(:in_max_wait AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second' END END
WHERE jobqueue_jobs.awaited_key = :in_unique_key::VARCHAR AND awaited_key IS NOT NULL AND state = 'scheduled'
RETURNING jobqueue_jobs.id;
