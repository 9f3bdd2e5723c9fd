SELECT jobqueue_queues.paused_at, jobqueue_queues.max_running, jobqueue_queues.rate_count,
    jobqueue_queues.rate_period, jobqueue_queues.rate_burst, jobqueue_queues.fair,
    CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) AS present
FROM jobqueue_queues
WHERE jobqueue_queues.name = :in_queue::VARCHAR;
