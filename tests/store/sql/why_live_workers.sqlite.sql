SELECT jobqueue_workers.name, jobqueue_workers.queues, jobqueue_workers.tasks, jobqueue_workers.concurrency,
    jobqueue_workers.running, jobqueue_workers.stopping_at
FROM jobqueue_workers
WHERE jobqueue_workers.heartbeat_at >= strftime('%Y-%m-%d %H:%M:%f000', 'now',
    printf('%+.3f seconds', -jobqueue_workers.lease));
