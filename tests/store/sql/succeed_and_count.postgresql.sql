WITH done AS (UPDATE jobqueue_jobs SET state=CASE
    WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL) THEN 'cancelled' ELSE 'succeeded' END, crashes=0,
    fence=(jobqueue_jobs.fence + 1), worker_id=NULL, reason=NULL, result=CASE
    WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL) THEN NULL ELSE anon_15.result END,
    finished_at=(SELECT clock_timestamp() AS anon_16),
    child_crashes=0 FROM unnest((SELECT CAST(:in_id::VARCHAR AS BIGINT[]) AS anon_17), (SELECT CAST(:in_fence::VARCHAR AS BIGINT[]) AS anon_18), (SELECT CAST(:in_result::VARCHAR AS TEXT[]) AS anon_19)) WITH ORDINALITY AS anon_15(id, fence, result, place) WHERE jobqueue_jobs.id = anon_15.id
    AND jobqueue_jobs.fence = anon_15.fence
    AND coalesce(jobqueue_jobs.worker_id, 0) = :in_worker::BIGINT RETURNING jobqueue_jobs.id,
    jobqueue_jobs.state),
    added AS (INSERT INTO jobqueue_counters (minute, queue, task, succeeded, failed, cancelled,
        errored_attempts, runs, duration, duration_max, wait, wait_max) SELECT date_trunc('minute',
        clock_timestamp(), 'UTC') AS anon_1,
        anon_2.queue AS queue, anon_2.task AS task, anon_2.succeeded AS succeeded, anon_2.failed AS failed,
        anon_2.cancelled AS cancelled, anon_2.errored_attempts AS errored_attempts, anon_2.runs AS runs,
        anon_2.duration AS duration, anon_2.duration_max AS duration_max, anon_2.wait AS wait,
        anon_2.wait_max AS wait_max FROM unnest((SELECT CAST(:in_queue::VARCHAR AS TEXT[]) AS anon_3), (SELECT CAST(:in_task::VARCHAR AS TEXT[]) AS anon_4), (SELECT CAST(:in_succeeded::VARCHAR AS BIGINT[]) AS anon_5), (SELECT CAST(:in_failed::VARCHAR AS BIGINT[]) AS anon_6), (SELECT CAST(:in_cancelled::VARCHAR AS BIGINT[]) AS anon_7), (SELECT CAST(:in_errored_attempts::VARCHAR AS BIGINT[]) AS anon_8), (SELECT CAST(:in_runs::VARCHAR AS BIGINT[]) AS anon_9), (SELECT CAST(:in_duration::VARCHAR AS DOUBLE PRECISION[]) AS anon_10), (SELECT CAST(:in_duration_max::VARCHAR AS DOUBLE PRECISION[]) AS anon_11), (SELECT CAST(:in_wait::VARCHAR AS DOUBLE PRECISION[]) AS anon_12), (SELECT CAST(:in_wait_max::VARCHAR AS DOUBLE PRECISION[]) AS anon_13)) WITH ORDINALITY AS anon_2(queue, task, succeeded, failed, cancelled, errored_attempts, runs, duration, duration_max, wait, wait_max, place) WHERE (SELECT count(*) FILTER (WHERE done.state = 'succeeded') = :in_expected::BIGINT AS anon_14 FROM done))
SELECT CASE WHEN (count(*) FILTER (WHERE done.state = 'succeeded') = :in_expected::BIGINT) THEN NULL
    ELSE coalesce(CAST(json_object_agg(done.id, done.state) AS TEXT), '{}') END AS anon_20
FROM done;
