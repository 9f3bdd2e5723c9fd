SELECT jobqueue_jobs.queue, jobqueue_jobs.priority
FROM jobqueue_jobs
WHERE jobqueue_jobs.state = 'available'
    AND (jobqueue_jobs.queue, jobqueue_jobs.priority) > (:in_queue::VARCHAR, :in_priority::INTEGER)
ORDER BY jobqueue_jobs.queue, jobqueue_jobs.priority
LIMIT 1;
