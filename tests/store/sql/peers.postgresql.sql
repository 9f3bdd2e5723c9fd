SELECT jobqueue_workers.id, jobqueue_workers.name, jobqueue_workers.host, jobqueue_workers.pid,
    jobqueue_workers.boot_id, jobqueue_workers.pid_namespace, jobqueue_workers.process_started,
    jobqueue_workers.lease, jobqueue_workers.heartbeats
FROM jobqueue_workers
WHERE jobqueue_workers.id > (SELECT own.id FROM jobqueue_workers AS own WHERE own.id = :in_worker::BIGINT)
ORDER BY jobqueue_workers.id
LIMIT :in_limit::INTEGER;
