UPDATE jobqueue_jobs
SET state='available', attempt=(jobqueue_jobs.attempt - 1), fence=(jobqueue_jobs.fence - 1), worker_id=NULL,
    worker=NULL, started_at=NULL WITH TIME ZONE
FROM unnest((SELECT CAST(:in_id::VARCHAR AS BIGINT[]) AS anon_2),
    (SELECT CAST(:in_fence::VARCHAR AS BIGINT[]) AS anon_3)) WITH ORDINALITY AS anon_1(id, fence, place)
WHERE jobqueue_jobs.id = anon_1.id AND jobqueue_jobs.fence = anon_1.fence;
