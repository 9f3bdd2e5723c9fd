UPDATE jobqueue_jobs
SET task=CAST(:in_task::VARCHAR AS TEXT), queue=CAST(:in_queue::VARCHAR AS TEXT), state=CASE
    WHEN (CAST(:in_debounce AS DOUBLE PRECISION) IS NULL) THEN CASE
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
    ELSE 'available' END END, priority=CAST(:in_priority::INTEGER AS INTEGER),
    args=CAST(:in_args::VARCHAR AS TEXT), tags=CAST(:in_tags::VARCHAR AS TEXT), run_at=CASE
    WHEN (CAST(:in_debounce AS DOUBLE PRECISION) IS NULL) THEN coalesce(:in_at::TIMESTAMP WITH TIME ZONE, CASE
        WHEN (CAST(:in_delay AS DOUBLE PRECISION) IS NOT NULL) THEN clock_timestamp() + CAST(CAST(:in_delay AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
        ELSE clock_timestamp() END)
    WHEN (jobqueue_jobs.attempt > 0 OR jobqueue_jobs.snoozes > 0
        OR jobqueue_jobs.crashes > 0) THEN jobqueue_jobs.run_at
    ELSE CASE
    WHEN (CAST(:in_max_wait AS DOUBLE PRECISION) IS NULL) THEN clock_timestamp() + CAST(CAST(:in_debounce AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
    WHEN (jobqueue_jobs.created_at + CAST(CAST(:in_max_wait AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second' > clock_timestamp() + CAST(CAST(:in_debounce AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second') THEN clock_timestamp() + CAST(CAST(:in_debounce AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
    ELSE jobqueue_jobs.created_at + CAST(CAST(:in_max_wait AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second' END END,
    max_attempts=(jobqueue_jobs.attempt + CAST(:in_max_attempts::INTEGER AS INTEGER)),
    base_max_attempts=CAST(:in_max_attempts::INTEGER AS INTEGER), crashes=0, snoozes=0,
    timeout=CAST(:in_timeout AS DOUBLE PRECISION), backoff=CAST(:in_backoff::VARCHAR AS TEXT),
    unique_until=CAST(:in_unique_until::VARCHAR AS TEXT), progress=NULL, progress_message=NULL, reason=NULL,
    deadline_at=CASE
    WHEN (CAST(:in_deadline AS DOUBLE PRECISION) IS NOT NULL) THEN clock_timestamp() + CAST(CAST(:in_deadline AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
    ELSE NULL END, child_crashes=0, headers=CAST(:in_headers::VARCHAR AS TEXT),
    scheduled_for=:in_scheduled_for::TIMESTAMP WITH TIME ZONE, expires_at=CASE
    WHEN (CAST(:in_expires AS DOUBLE PRECISION) IS NOT NULL) THEN clock_timestamp() + CAST(CAST(:in_expires AS DOUBLE PRECISION) AS DOUBLE PRECISION) * INTERVAL '1 second'
    ELSE NULL END, lane=CAST(:in_lane::VARCHAR AS TEXT), lane_limit=CAST(:in_lane_limit::INTEGER AS INTEGER),
    lane_weight=CAST(:in_lane_weight AS DOUBLE PRECISION),
    lane_strict=CAST(:in_lane_strict::INTEGER AS INTEGER)
WHERE jobqueue_jobs.unique_key = :in_unique_key::VARCHAR
    AND (jobqueue_jobs.unique_until = 'deleted' OR jobqueue_jobs.unique_until = 'finished'
        AND jobqueue_jobs.state IN ('scheduled', 'available', 'running')
        OR jobqueue_jobs.unique_until = 'started' AND jobqueue_jobs.key_released = 0
        AND jobqueue_jobs.state IN ('scheduled', 'available', 'running'))
    AND jobqueue_jobs.state IN ('scheduled', 'available')
RETURNING jobqueue_jobs.id;
