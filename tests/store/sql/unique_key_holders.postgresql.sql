SELECT jobqueue_jobs.id, jobqueue_jobs.unique_key, jobqueue_jobs.task, jobqueue_jobs.args,
    jobqueue_jobs.queue, jobqueue_jobs.state
FROM jobqueue_jobs
WHERE jobqueue_jobs.unique_key IN (:in_keys)
    AND (jobqueue_jobs.unique_until = 'deleted' OR jobqueue_jobs.unique_until = 'finished'
        AND jobqueue_jobs.state IN ('scheduled', 'available', 'running')
        OR jobqueue_jobs.unique_until = 'started' AND jobqueue_jobs.key_released = 0
        AND jobqueue_jobs.state IN ('scheduled', 'available', 'running'));
