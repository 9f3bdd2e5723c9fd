UPDATE jobqueue_jobs
SET progress=input.progress, progress_message=input.message,
    progress_at=(SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now') AS anon_1)
FROM (
    SELECT anon_2."key" AS place, json_extract(anon_2.value, '$[0]') AS id,
        json_extract(anon_2.value, '$[1]') AS fence, json_extract(anon_2.value, '$[2]') AS progress,
        json_extract(anon_2.value, '$[3]') AS message
    FROM json_each(:in_rows) AS anon_2
) AS input
WHERE jobqueue_jobs.id = input.id AND jobqueue_jobs.fence = input.fence
    AND coalesce(jobqueue_jobs.worker_id, 0) = :in_worker;
