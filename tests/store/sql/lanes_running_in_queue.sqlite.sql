SELECT count(*) AS count_1
FROM jobqueue_jobs
WHERE jobqueue_jobs.worker_id BETWEEN 1 AND 9223372036854775807 AND jobqueue_jobs.queue = :in_queue;
