SELECT jobqueue_jobs.queue, jobqueue_jobs.priority
FROM jobqueue_jobs
WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane IS NULL
    AND (jobqueue_jobs.queue, jobqueue_jobs.priority, jobqueue_jobs.run_at,
        jobqueue_jobs.id) > (:in_queue::VARCHAR, :in_priority::INTEGER,
        :in_cursor_run_at::TIMESTAMP WITH TIME ZONE, :in_cursor_id::BIGINT)
ORDER BY jobqueue_jobs.queue, jobqueue_jobs.priority
LIMIT 1;
