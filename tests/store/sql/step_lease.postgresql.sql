UPDATE jobqueue_workers
SET heartbeats=(jobqueue_workers.heartbeats + :in_step::INTEGER)
WHERE jobqueue_workers.id = :in_worker::BIGINT
RETURNING jobqueue_workers.id;
