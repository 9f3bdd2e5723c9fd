DELETE
FROM jobqueue_workers
WHERE jobqueue_workers.id = :in_worker AND jobqueue_workers.heartbeats = :in_seen
RETURNING id;
