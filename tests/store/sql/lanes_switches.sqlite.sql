SELECT jobqueue_queues.paused_at, jobqueue_queues.max_running, jobqueue_queues.rate_count,
    jobqueue_queues.rate_period, jobqueue_queues.rate_burst, jobqueue_queues.fair,
    ((julianday('now') - 2440587.5) * 86400.0) AS present,
    EXISTS (SELECT * FROM jobqueue_pauses WHERE jobqueue_pauses.name IS NOT NULL) AS is_any_paused
FROM (
    SELECT 1 AS one
) AS one LEFT OUTER JOIN jobqueue_queues ON jobqueue_queues.name = :in_queue;
