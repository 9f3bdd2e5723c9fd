UPDATE jobqueue_jobs
SET state='available', attempt=(jobqueue_jobs.attempt - 1), fence=(jobqueue_jobs.fence - 1), worker_id=NULL,
    worker=NULL, started_at=NULL
FROM (
    SELECT anon_1."key" AS place, json_extract(anon_1.value, '$[0]') AS id,
        json_extract(anon_1.value, '$[1]') AS fence
    FROM json_each(:in_rows) AS anon_1
) AS input
WHERE jobqueue_jobs.id = input.id AND jobqueue_jobs.fence = input.fence;
