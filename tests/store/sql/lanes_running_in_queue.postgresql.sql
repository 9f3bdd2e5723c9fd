SELECT count(*) AS count_1
FROM jobqueue_jobs
WHERE jobqueue_jobs.worker_id IS NOT NULL AND jobqueue_jobs.queue = :in_queue::VARCHAR;
