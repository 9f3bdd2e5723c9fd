UPDATE jobqueue_jobs
SET state='succeeded', crashes=0, fence=(jobqueue_jobs.fence + 1), worker_id=NULL, reason=NULL,
    result=:in_result, finished_at=strftime('%Y-%m-%d %H:%M:%f000', 'now'), child_crashes=0
WHERE jobqueue_jobs.id = :in_job AND jobqueue_jobs.fence = :in_claimed
    AND coalesce(jobqueue_jobs.worker_id, 0) = :in_worker AND jobqueue_jobs.cancel_requested_at IS NULL
RETURNING id;
