UPDATE jobqueue_jobs
SET state='succeeded', crashes=0, fence=(jobqueue_jobs.fence + 1), worker_id=NULL, reason=NULL,
    result=:in_result::VARCHAR, finished_at=clock_timestamp(), child_crashes=0
WHERE jobqueue_jobs.id = :in_job::BIGINT AND jobqueue_jobs.fence = :in_claimed::BIGINT
    AND coalesce(jobqueue_jobs.worker_id, 0) = :in_worker::BIGINT
    AND jobqueue_jobs.cancel_requested_at IS NULL
RETURNING jobqueue_jobs.id;
