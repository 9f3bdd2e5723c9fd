INSERT INTO jobqueue_jobs (task, queue, priority, args, tags, max_attempts, timeout, backoff, unique_key,
    unique_until, headers, scheduled_for, lane, lane_limit, lane_weight, lane_strict, awaited_key, state,
    run_at, deadline_at, expires_at)
SELECT anon_1.task, anon_1.queue, anon_1.priority, anon_1.args, anon_1.tags, anon_1.max_attempts,
    anon_1.timeout, anon_1.backoff, anon_1.unique_key, anon_1.unique_until, anon_1.headers,
    anon_1.scheduled_for, anon_1.lane, anon_1.lane_limit, anon_1.lane_weight, anon_1.lane_strict,
    anon_1.awaited_key, CASE WHEN (anon_1.awaited_key IS NOT NULL) THEN 'scheduled' ELSE CASE
    WHEN (anon_1.delay > 0 OR anon_1.at IS NOT NULL AND anon_1.at > clock_timestamp()) THEN 'scheduled'
    ELSE 'available' END END AS anon_2,
    coalesce(anon_1.at, CASE
        WHEN (anon_1.delay IS NOT NULL) THEN clock_timestamp() + CAST(anon_1.delay AS DOUBLE PRECISION) * INTERVAL '1 second'
        ELSE clock_timestamp() END) AS coalesce_1,
    CASE
    WHEN (anon_1.deadline IS NOT NULL) THEN clock_timestamp() + CAST(anon_1.deadline AS DOUBLE PRECISION) * INTERVAL '1 second'
    ELSE NULL END AS anon_3, CASE
    WHEN (anon_1.expires IS NOT NULL) THEN clock_timestamp() + CAST(anon_1.expires AS DOUBLE PRECISION) * INTERVAL '1 second'
    ELSE NULL END AS anon_4
FROM unnest((SELECT CAST(:in_task::VARCHAR AS TEXT[]) AS anon_5),
    (SELECT CAST(:in_queue::VARCHAR AS TEXT[]) AS anon_6),
    (SELECT CAST(:in_priority::VARCHAR AS INTEGER[]) AS anon_7),
    (SELECT CAST(:in_args::VARCHAR AS TEXT[]) AS anon_8),
    (SELECT CAST(:in_tags::VARCHAR AS TEXT[]) AS anon_9),
    (SELECT CAST(:in_delay::VARCHAR AS DOUBLE PRECISION[]) AS anon_10),
    (SELECT CAST(:in_at::VARCHAR AS TIMESTAMP WITH TIME ZONE[]) AS anon_11),
    (SELECT CAST(:in_max_attempts::VARCHAR AS INTEGER[]) AS anon_12),
    (SELECT CAST(:in_timeout::VARCHAR AS DOUBLE PRECISION[]) AS anon_13),
    (SELECT CAST(:in_backoff::VARCHAR AS TEXT[]) AS anon_14),
    (SELECT CAST(:in_unique_key::VARCHAR AS TEXT[]) AS anon_15),
    (SELECT CAST(:in_unique_until::VARCHAR AS TEXT[]) AS anon_16),
    (SELECT CAST(:in_deadline::VARCHAR AS DOUBLE PRECISION[]) AS anon_17),
    (SELECT CAST(:in_headers::VARCHAR AS TEXT[]) AS anon_18),
    (SELECT CAST(:in_scheduled_for::VARCHAR AS TIMESTAMP WITH TIME ZONE[]) AS anon_19),
    (SELECT CAST(:in_lane::VARCHAR AS TEXT[]) AS anon_20),
    (SELECT CAST(:in_lane_limit::VARCHAR AS INTEGER[]) AS anon_21),
    (SELECT CAST(:in_lane_weight::VARCHAR AS DOUBLE PRECISION[]) AS anon_22),
    (SELECT CAST(:in_lane_strict::VARCHAR AS INTEGER[]) AS anon_23),
    (SELECT CAST(:in_expires::VARCHAR AS DOUBLE PRECISION[]) AS anon_24),
    (SELECT CAST(:in_awaited_key::VARCHAR AS TEXT[]) AS anon_25)) WITH ORDINALITY AS anon_1(task, queue,
    priority, args, tags, delay, at, max_attempts, timeout, backoff, unique_key, unique_until, deadline,
    headers, scheduled_for, lane, lane_limit, lane_weight, lane_strict, expires, awaited_key, place)
WHERE anon_1.place >= 0
ORDER BY anon_1.place
ON CONFLICT DO NOTHING
RETURNING jobqueue_jobs.id, jobqueue_jobs.unique_key;
