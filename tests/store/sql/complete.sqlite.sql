UPDATE jobqueue_jobs
SET state=CASE WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL) THEN 'cancelled' ELSE input.state END,
    run_at=CASE WHEN (input.delay IS NULL) THEN jobqueue_jobs.run_at
    ELSE strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds', input.delay)) END,
    attempt=(jobqueue_jobs.attempt - input.refund), crashes=coalesce(input.crashes, jobqueue_jobs.crashes),
    snoozes=(jobqueue_jobs.snoozes + input.snooze), fence=(jobqueue_jobs.fence + 1), worker_id=NULL,
    worker=CASE
    WHEN (CASE WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL) THEN 'cancelled'
        ELSE input.state END IN ('succeeded', 'failed', 'cancelled')) THEN jobqueue_jobs.worker
    ELSE NULL END, reason=input.reason, started_at=CASE
    WHEN (CASE WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL) THEN 'cancelled'
        ELSE input.state END IN ('succeeded', 'failed', 'cancelled')) THEN jobqueue_jobs.started_at
    ELSE NULL END, finished_at=CASE
    WHEN (CASE WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL) THEN 'cancelled'
        ELSE input.state END IN ('succeeded', 'failed', 'cancelled')) THEN strftime('%Y-%m-%d %H:%M:%f000',
        'now')
    ELSE NULL END, child_crashes=coalesce(input.child_crashes, jobqueue_jobs.child_crashes)
FROM (
    SELECT anon_1."key" AS place, json_extract(anon_1.value, '$[0]') AS id,
        json_extract(anon_1.value, '$[1]') AS fence, json_extract(anon_1.value, '$[2]') AS state,
        json_extract(anon_1.value, '$[3]') AS delay, json_extract(anon_1.value, '$[4]') AS refund,
        json_extract(anon_1.value, '$[5]') AS snooze, json_extract(anon_1.value, '$[6]') AS reason,
        json_extract(anon_1.value, '$[7]') AS crashes, json_extract(anon_1.value, '$[8]') AS child_crashes
    FROM json_each(:in_rows) AS anon_1
) AS input
WHERE jobqueue_jobs.id = input.id AND jobqueue_jobs.fence = input.fence
    AND coalesce(jobqueue_jobs.worker_id, 0) = :in_worker
RETURNING id, state;
