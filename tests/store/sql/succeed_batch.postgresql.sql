UPDATE jobqueue_jobs
SET state='succeeded', crashes=0, fence=(jobqueue_jobs.fence + 1), worker_id=NULL, reason=NULL,
    result=anon_1.result, finished_at=(SELECT clock_timestamp() AS anon_2), child_crashes=0
FROM unnest((SELECT CAST(:in_id::VARCHAR AS BIGINT[]) AS anon_3),
    (SELECT CAST(:in_fence::VARCHAR AS BIGINT[]) AS anon_4),
    (SELECT CAST(:in_result::VARCHAR AS TEXT[]) AS anon_5)) WITH ORDINALITY AS anon_1(id, fence, result,
    place)
WHERE jobqueue_jobs.id = anon_1.id AND jobqueue_jobs.fence = anon_1.fence
    AND coalesce(jobqueue_jobs.worker_id, 0) = :in_worker::BIGINT
    AND jobqueue_jobs.cancel_requested_at IS NULL;
