SELECT jobqueue_jobs.id, jobqueue_jobs.fence
FROM jobqueue_jobs
WHERE jobqueue_jobs.worker_id = :in_worker::BIGINT AND jobqueue_jobs.cancel_requested_at IS NOT NULL;
