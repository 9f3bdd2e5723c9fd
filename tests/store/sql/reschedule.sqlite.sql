UPDATE jobqueue_jobs
SET state=CASE WHEN (CAST(:in_debounce AS DOUBLE) IS NULL) THEN CASE
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
    ELSE 'available' END END, run_at=CASE
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
        printf('%+.3f seconds', CAST(:in_max_wait AS DOUBLE))) END END
WHERE jobqueue_jobs.unique_key = :in_unique_key
    AND (jobqueue_jobs.unique_until = 'deleted' OR jobqueue_jobs.unique_until = 'finished'
        AND jobqueue_jobs.state IN ('scheduled', 'available', 'running')
        OR jobqueue_jobs.unique_until = 'started' AND jobqueue_jobs.key_released = 0
        AND jobqueue_jobs.state IN ('scheduled', 'available', 'running'))
    AND jobqueue_jobs.state IN ('scheduled', 'available')
RETURNING id;
