SELECT jobqueue_jobs.id, jobqueue_jobs.state, jobqueue_jobs.fence
FROM jobqueue_jobs,
    unnest((SELECT CAST(:in_id::VARCHAR AS BIGINT[]) AS anon_2),
        (SELECT CAST(:in_fence::VARCHAR AS BIGINT[]) AS anon_3)) WITH ORDINALITY AS anon_1(id, fence, place)
WHERE jobqueue_jobs.id = anon_1.id AND jobqueue_jobs.fence = anon_1.fence + 1
    AND jobqueue_jobs.worker = :in_worker_name::VARCHAR;
