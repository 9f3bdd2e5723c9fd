UPDATE jobqueue_jobs
SET state='running', attempt=(jobqueue_jobs.attempt + 1), fence=(jobqueue_jobs.fence + 1),
    worker_id=:in_worker::BIGINT, worker=:in_worker_name::VARCHAR,
    started_at=:in_started_at::TIMESTAMP WITH TIME ZONE
WHERE jobqueue_jobs.id = ANY (array((SELECT anon_1.id FROM unnest((SELECT CAST(:in_id::VARCHAR AS BIGINT[]) AS anon_2)) WITH ORDINALITY AS anon_1(id, place))));
