SELECT (EXISTS (SELECT * FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
    AND jobqueue_jobs.lane IS NOT NULL))
    OR (EXISTS (SELECT * FROM jobqueue_queues WHERE jobqueue_queues.max_running IS NOT NULL
        OR jobqueue_queues.rate_count IS NOT NULL OR jobqueue_queues.fair = 1)) AS anon_1;
