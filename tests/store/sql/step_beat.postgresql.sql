UPDATE jobqueue_workers
SET beat=(jobqueue_workers.beat + :in_step::INTEGER)
WHERE jobqueue_workers.id = :in_worker::BIGINT
RETURNING jobqueue_workers.id;
