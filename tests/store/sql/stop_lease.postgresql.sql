UPDATE jobqueue_workers
SET stopping_at=coalesce(jobqueue_workers.stopping_at, clock_timestamp())
WHERE jobqueue_workers.id = :in_worker::BIGINT;
