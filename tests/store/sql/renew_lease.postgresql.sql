UPDATE jobqueue_workers
SET concurrency=:in_concurrency::INTEGER, heartbeats=(jobqueue_workers.heartbeats + 1),
    running=:in_running::INTEGER, processed=:in_processed::BIGINT, errored=:in_errored::BIGINT,
    heartbeat_at=clock_timestamp()
WHERE jobqueue_workers.id = :in_worker::BIGINT
RETURNING jobqueue_workers.heartbeats;
