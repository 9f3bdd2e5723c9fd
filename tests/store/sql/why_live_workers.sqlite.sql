SELECT jobqueue_workers.name, jobqueue_workers.queues, jobqueue_workers.tasks, jobqueue_workers.concurrency,
    jobqueue_workers.running, jobqueue_workers.stopping_at
FROM jobqueue_workers
WHERE jobqueue_workers.heartbeat_at >= strftime('%Y-%m-%d %H:%M:%f000', 'now',
    printf('%+.3f seconds', -CASE WHEN (jobqueue_workers.lease BETWEEN 0.0
        AND 316224000.0) THEN jobqueue_workers.lease ELSE 0.0 END));
