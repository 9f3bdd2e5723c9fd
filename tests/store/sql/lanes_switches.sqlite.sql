SELECT jobqueue_queues.paused_at, jobqueue_queues.max_running, jobqueue_queues.rate_count,
    jobqueue_queues.rate_period, jobqueue_queues.rate_burst, jobqueue_queues.fair,
    ((julianday('now') - 2440587.5) * 86400.0) AS present
FROM jobqueue_queues
WHERE jobqueue_queues.name = :in_queue;
