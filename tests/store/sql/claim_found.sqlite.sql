UPDATE jobqueue_jobs
SET state='running', attempt=(jobqueue_jobs.attempt + 1), fence=(jobqueue_jobs.fence + 1),
    worker_id=:in_worker, worker=:in_worker_name, started_at=:in_started_at
WHERE jobqueue_jobs.id IN (SELECT input.id FROM (
    SELECT anon_1."key" AS place, anon_1.value AS id
    FROM json_each(:in_rows) AS anon_1
) AS input);
