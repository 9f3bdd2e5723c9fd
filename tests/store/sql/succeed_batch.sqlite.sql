UPDATE jobqueue_jobs
SET state='succeeded', crashes=0, fence=(jobqueue_jobs.fence + 1), worker_id=NULL, reason=NULL,
    result=input.result, finished_at=(SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now') AS anon_1),
    child_crashes=0
FROM (
    SELECT CAST(anon_2."key" AS BIGINT) AS id, anon_2.value AS result
    FROM json_each(:in_results) AS anon_2
) AS input
WHERE jobqueue_jobs.id = input.id AND jobqueue_jobs.fence = :in_claimed
    AND coalesce(jobqueue_jobs.worker_id, 0) = :in_worker AND jobqueue_jobs.cancel_requested_at IS NULL;
