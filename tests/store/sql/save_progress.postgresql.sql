UPDATE jobqueue_jobs
SET progress=anon_1.progress, progress_message=anon_1.message,
    progress_at=(SELECT clock_timestamp() AS anon_2)
FROM unnest((SELECT CAST(:in_id::VARCHAR AS BIGINT[]) AS anon_3),
    (SELECT CAST(:in_fence::VARCHAR AS BIGINT[]) AS anon_4),
    (SELECT CAST(:in_progress::VARCHAR AS DOUBLE PRECISION[]) AS anon_5),
    (SELECT CAST(:in_message::VARCHAR AS TEXT[]) AS anon_6)) WITH ORDINALITY AS anon_1(id, fence, progress,
    message, place)
WHERE jobqueue_jobs.id = anon_1.id AND jobqueue_jobs.fence = anon_1.fence
    AND coalesce(jobqueue_jobs.worker_id, 0) = :in_worker::BIGINT;
