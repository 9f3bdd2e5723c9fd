INSERT INTO jobqueue_jobs (task, queue, state, priority, args, tags, run_at, max_attempts, timeout, backoff,
    unique_key, unique_until, deadline_at)
VALUES (CAST(:in_task AS TEXT), CAST(:in_queue AS TEXT), CASE
    WHEN (CAST(:in_delay AS DOUBLE) > 0 OR :in_at IS NOT NULL AND :in_at > strftime('%Y-%m-%d %H:%M:%f000',
        'now')) THEN 'scheduled'
    ELSE 'available' END, CAST(:in_priority AS INTEGER), CAST(:in_args AS TEXT), CAST(:in_tags AS TEXT),
    coalesce(:in_at, CASE WHEN (CAST(:in_delay AS DOUBLE) IS NOT NULL) THEN strftime('%Y-%m-%d %H:%M:%f000',
        'now', printf('%+.3f seconds', CAST(:in_delay AS DOUBLE))) ELSE strftime('%Y-%m-%d %H:%M:%f000',
        'now') END),
    CAST(:in_max_attempts AS INTEGER), CAST(:in_timeout AS DOUBLE), CAST(:in_backoff AS TEXT),
    CAST(:in_unique_key AS TEXT), CAST(:in_unique_until AS TEXT), CASE
    WHEN (CAST(:in_deadline AS DOUBLE) IS NOT NULL) THEN strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds',
        CAST(:in_deadline AS DOUBLE)))
    ELSE NULL END)
ON CONFLICT DO NOTHING
RETURNING id, unique_key;
