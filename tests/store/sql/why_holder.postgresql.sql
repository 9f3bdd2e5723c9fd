SELECT jobqueue_workers.heartbeat_at,
    jobqueue_workers.heartbeat_at >= clock_timestamp() + CAST(-jobqueue_workers.lease AS DOUBLE PRECISION) * INTERVAL '1 second' AS is_alive
FROM jobqueue_workers
WHERE jobqueue_workers.id = :in_worker::BIGINT;
