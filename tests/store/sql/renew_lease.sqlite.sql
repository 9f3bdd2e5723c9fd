UPDATE jobqueue_workers
SET concurrency=:in_concurrency, heartbeats=(jobqueue_workers.heartbeats + 1), running=:in_running,
    processed=:in_processed, errored=:in_errored, heartbeat_at=strftime('%Y-%m-%d %H:%M:%f000', 'now')
WHERE jobqueue_workers.id = :in_worker
RETURNING heartbeats;
