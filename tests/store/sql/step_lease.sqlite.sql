UPDATE jobqueue_workers
SET heartbeats=(jobqueue_workers.heartbeats + :in_step)
WHERE jobqueue_workers.id = :in_worker
RETURNING id;
