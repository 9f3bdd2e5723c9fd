SELECT jobqueue_jobs.id, jobqueue_jobs.state, jobqueue_jobs.fence
FROM jobqueue_jobs,
    (SELECT anon_1."key" AS place, json_extract(anon_1.value, '$[0]') AS id,
        json_extract(anon_1.value, '$[1]') AS fence FROM json_each(:in_rows) AS anon_1) AS input
WHERE jobqueue_jobs.id = input.id AND jobqueue_jobs.fence = input.fence + 1
    AND jobqueue_jobs.worker = :in_worker_name;
