UPDATE jobqueue_workers
SET beat=(jobqueue_workers.beat + :in_step)
WHERE jobqueue_workers.id = :in_worker
RETURNING id;
