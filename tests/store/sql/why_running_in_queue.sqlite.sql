SELECT jobqueue_jobs.id
FROM jobqueue_jobs
WHERE jobqueue_jobs.worker_id IS NOT NULL AND jobqueue_jobs.queue = :in_queue
ORDER BY jobqueue_jobs.worker_id
LIMIT 100 OFFSET 0;
