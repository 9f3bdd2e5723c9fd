DELETE
FROM jobqueue_workers
WHERE jobqueue_workers.id = :in_worker::BIGINT AND jobqueue_workers.heartbeats = :in_seen::BIGINT
RETURNING jobqueue_workers.id;
