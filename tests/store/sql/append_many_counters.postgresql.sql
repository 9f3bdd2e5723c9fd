INSERT INTO jobqueue_counters (minute, queue, task, succeeded, failed, cancelled, errored_attempts, runs,
    duration, duration_max, wait, wait_max)
SELECT date_trunc('minute', clock_timestamp(), 'UTC') AS anon_1, anon_2.queue, anon_2.task, anon_2.succeeded,
    anon_2.failed, anon_2.cancelled, anon_2.errored_attempts, anon_2.runs, anon_2.duration,
    anon_2.duration_max, anon_2.wait, anon_2.wait_max
FROM unnest((SELECT CAST(:in_queue::VARCHAR AS TEXT[]) AS anon_3),
    (SELECT CAST(:in_task::VARCHAR AS TEXT[]) AS anon_4),
    (SELECT CAST(:in_succeeded::VARCHAR AS BIGINT[]) AS anon_5),
    (SELECT CAST(:in_failed::VARCHAR AS BIGINT[]) AS anon_6),
    (SELECT CAST(:in_cancelled::VARCHAR AS BIGINT[]) AS anon_7),
    (SELECT CAST(:in_errored_attempts::VARCHAR AS BIGINT[]) AS anon_8),
    (SELECT CAST(:in_runs::VARCHAR AS BIGINT[]) AS anon_9),
    (SELECT CAST(:in_duration::VARCHAR AS DOUBLE PRECISION[]) AS anon_10),
    (SELECT CAST(:in_duration_max::VARCHAR AS DOUBLE PRECISION[]) AS anon_11),
    (SELECT CAST(:in_wait::VARCHAR AS DOUBLE PRECISION[]) AS anon_12),
    (SELECT CAST(:in_wait_max::VARCHAR AS DOUBLE PRECISION[]) AS anon_13)) WITH ORDINALITY AS anon_2(queue,
    task, succeeded, failed, cancelled, errored_attempts, runs, duration, duration_max, wait, wait_max, place);
