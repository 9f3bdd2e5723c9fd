SELECT jobqueue_queues.name
FROM jobqueue_queues
WHERE (jobqueue_queues.max_running IS NOT NULL OR jobqueue_queues.rate_count IS NOT NULL
    OR jobqueue_queues.fair = 1)
    AND (EXISTS (SELECT * FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
        AND jobqueue_jobs.lane IS NULL AND jobqueue_jobs.queue = jobqueue_queues.name));
