UPDATE jobqueue_jobs
SET task=CAST(:in_task AS TEXT), queue=CAST(:in_queue AS TEXT), state=CASE
    WHEN (CAST(:in_debounce AS DOUBLE) IS NULL) THEN CASE
    WHEN (CAST(:in_delay AS DOUBLE) > 0 OR :in_at IS NOT NULL
        AND :in_at > strftime('%Y-%m-%d %H:%M:%f000', 'now')) THEN 'scheduled'
    ELSE 'available' END
    WHEN (jobqueue_jobs.attempt > 0 OR jobqueue_jobs.snoozes > 0
        OR jobqueue_jobs.crashes > 0) THEN jobqueue_jobs.state
    ELSE CASE
    WHEN (CASE
        WHEN (CAST(:in_max_wait AS DOUBLE) IS NULL) THEN strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds',
            CAST(:in_debounce AS DOUBLE)))
        WHEN (strftime('%Y-%m-%d %H:%M:%f000', jobqueue_jobs.created_at,
            printf('%+.3f seconds', CAST(:in_max_wait AS DOUBLE))) > strftime('%Y-%m-%d %H:%M:%f000', 'now',
            printf('%+.3f seconds', CAST(:in_debounce AS DOUBLE)))) THEN strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds',
            CAST(:in_debounce AS DOUBLE)))
        ELSE strftime('%Y-%m-%d %H:%M:%f000', jobqueue_jobs.created_at, printf('%+.3f seconds',
            CAST(:in_max_wait AS DOUBLE))) END > strftime('%Y-%m-%d %H:%M:%f000', 'now')) THEN 'scheduled'
    ELSE 'available' END END, priority=CAST(:in_priority AS INTEGER), args=CAST(:in_args AS TEXT),
    tags=CAST(:in_tags AS TEXT), run_at=CASE
    WHEN (CAST(:in_debounce AS DOUBLE) IS NULL) THEN coalesce(:in_at, CASE
        WHEN (CAST(:in_delay AS DOUBLE) IS NOT NULL) THEN strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds',
            CAST(:in_delay AS DOUBLE)))
        ELSE strftime('%Y-%m-%d %H:%M:%f000', 'now') END)
    WHEN (jobqueue_jobs.attempt > 0 OR jobqueue_jobs.snoozes > 0
        OR jobqueue_jobs.crashes > 0) THEN jobqueue_jobs.run_at
    ELSE CASE
    WHEN (CAST(:in_max_wait AS DOUBLE) IS NULL) THEN strftime('%Y-%m-%d %H:%M:%f000', 'now',
        printf('%+.3f seconds', CAST(:in_debounce AS DOUBLE)))
    WHEN (strftime('%Y-%m-%d %H:%M:%f000', jobqueue_jobs.created_at,
        printf('%+.3f seconds', CAST(:in_max_wait AS DOUBLE))) > strftime('%Y-%m-%d %H:%M:%f000', 'now',
        printf('%+.3f seconds', CAST(:in_debounce AS DOUBLE)))) THEN strftime('%Y-%m-%d %H:%M:%f000',
        'now', printf('%+.3f seconds', CAST(:in_debounce AS DOUBLE)))
    ELSE strftime('%Y-%m-%d %H:%M:%f000', jobqueue_jobs.created_at,
        printf('%+.3f seconds', CAST(:in_max_wait AS DOUBLE))) END END,
    max_attempts=(jobqueue_jobs.attempt + CAST(:in_max_attempts AS INTEGER)),
    base_max_attempts=CAST(:in_max_attempts AS INTEGER), crashes=0, snoozes=0,
    timeout=CAST(:in_timeout AS DOUBLE), backoff=CAST(:in_backoff AS TEXT),
    unique_until=CAST(:in_unique_until AS TEXT), progress=NULL, progress_message=NULL, reason=NULL,
    deadline_at=CASE
    WHEN (CAST(:in_deadline AS DOUBLE) IS NOT NULL) THEN strftime('%Y-%m-%d %H:%M:%f000', 'now',
        printf('%+.3f seconds', CAST(:in_deadline AS DOUBLE)))
    ELSE NULL END, child_crashes=0, headers=CAST(:in_headers AS TEXT), scheduled_for=:in_scheduled_for,
    expires_at=CASE
    WHEN (CAST(:in_expires AS DOUBLE) IS NOT NULL) THEN strftime('%Y-%m-%d %H:%M:%f000', 'now',
        printf('%+.3f seconds', CAST(:in_expires AS DOUBLE)))
    ELSE NULL END, lane=CAST(:in_lane AS TEXT), lane_limit=CAST(:in_lane_limit AS INTEGER),
    lane_weight=CAST(:in_lane_weight AS DOUBLE), lane_strict=CAST(:in_lane_strict AS INTEGER)
WHERE jobqueue_jobs.unique_key = :in_unique_key
    AND (jobqueue_jobs.unique_until = 'deleted' OR jobqueue_jobs.unique_until = 'finished'
        AND jobqueue_jobs.state IN ('scheduled', 'available', 'running')
        OR jobqueue_jobs.unique_until = 'started' AND jobqueue_jobs.key_released = 0
        AND jobqueue_jobs.state IN ('scheduled', 'available', 'running'))
    AND jobqueue_jobs.state IN ('scheduled', 'available')
RETURNING id;
