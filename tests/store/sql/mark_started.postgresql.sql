UPDATE jobqueue_jobs
SET key_released=1
WHERE jobqueue_jobs.id = :in_job::BIGINT AND jobqueue_jobs.fence = :in_claimed::BIGINT
    AND coalesce(jobqueue_jobs.worker_id, 0) = :in_worker::BIGINT;
