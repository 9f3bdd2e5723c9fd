UPDATE jobqueue_jobs
SET state=CASE WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL) THEN 'cancelled' ELSE anon_1.state END,
    run_at=CASE WHEN (anon_1.delay IS NULL) THEN jobqueue_jobs.run_at
    ELSE clock_timestamp() + CAST(anon_1.delay AS DOUBLE PRECISION) * INTERVAL '1 second' END,
    attempt=(jobqueue_jobs.attempt - anon_1.refund), crashes=coalesce(anon_1.crashes, jobqueue_jobs.crashes),
    snoozes=(jobqueue_jobs.snoozes + anon_1.snooze), fence=(jobqueue_jobs.fence + 1), worker_id=NULL,
    worker=CASE
    WHEN (CASE WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL) THEN 'cancelled'
        ELSE anon_1.state END IN ('succeeded', 'failed', 'cancelled')) THEN jobqueue_jobs.worker
    ELSE NULL END, reason=anon_1.reason, started_at=CASE
    WHEN (CASE WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL) THEN 'cancelled'
        ELSE anon_1.state END IN ('succeeded', 'failed', 'cancelled')) THEN jobqueue_jobs.started_at
    ELSE NULL END, finished_at=CASE
    WHEN (CASE WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL) THEN 'cancelled'
        ELSE anon_1.state END IN ('succeeded', 'failed', 'cancelled')) THEN clock_timestamp()
    ELSE NULL END, child_crashes=coalesce(anon_1.child_crashes, jobqueue_jobs.child_crashes)
FROM unnest((SELECT CAST(:in_id::VARCHAR AS BIGINT[]) AS anon_2),
    (SELECT CAST(:in_fence::VARCHAR AS BIGINT[]) AS anon_3),
    (SELECT CAST(:in_state::VARCHAR AS TEXT[]) AS anon_4),
    (SELECT CAST(:in_delay::VARCHAR AS DOUBLE PRECISION[]) AS anon_5),
    (SELECT CAST(:in_refund::VARCHAR AS INTEGER[]) AS anon_6),
    (SELECT CAST(:in_snooze::VARCHAR AS INTEGER[]) AS anon_7),
    (SELECT CAST(:in_reason::VARCHAR AS TEXT[]) AS anon_8),
    (SELECT CAST(:in_crashes::VARCHAR AS INTEGER[]) AS anon_9),
    (SELECT CAST(:in_child_crashes::VARCHAR AS INTEGER[]) AS anon_10)) WITH ORDINALITY AS anon_1(id, fence,
    state, delay, refund, snooze, reason, crashes, child_crashes, place)
WHERE jobqueue_jobs.id = anon_1.id AND jobqueue_jobs.fence = anon_1.fence
    AND coalesce(jobqueue_jobs.worker_id, 0) = :in_worker::BIGINT
RETURNING jobqueue_jobs.id, jobqueue_jobs.state;
