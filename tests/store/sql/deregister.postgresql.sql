DELETE
FROM jobqueue_workers
WHERE jobqueue_workers.id = :in_worker::BIGINT;
