UPDATE jobqueue_workers
SET stopping_at=coalesce(jobqueue_workers.stopping_at, strftime('%Y-%m-%d %H:%M:%f000', 'now'))
WHERE jobqueue_workers.id = :in_worker;
