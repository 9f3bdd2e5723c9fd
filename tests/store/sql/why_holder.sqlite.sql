SELECT jobqueue_workers.heartbeat_at,
    jobqueue_workers.heartbeat_at >= strftime('%Y-%m-%d %H:%M:%f000', 'now',
        printf('%+.3f seconds', -jobqueue_workers.lease)) AS is_alive
FROM jobqueue_workers
WHERE jobqueue_workers.id = :in_worker;
