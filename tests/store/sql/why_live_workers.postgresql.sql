SELECT jobqueue_workers.name, jobqueue_workers.queues, jobqueue_workers.tasks, jobqueue_workers.concurrency,
    jobqueue_workers.running, jobqueue_workers.stopping_at
FROM jobqueue_workers
WHERE jobqueue_workers.heartbeat_at >= clock_timestamp() + CAST(-jobqueue_workers.lease AS DOUBLE PRECISION) * INTERVAL '1 second';
