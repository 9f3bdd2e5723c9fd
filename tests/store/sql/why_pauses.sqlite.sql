SELECT jobqueue_pauses.kind, jobqueue_pauses.name, jobqueue_pauses.paused_at, jobqueue_pauses.paused_by
FROM jobqueue_pauses, jobqueue_jobs
WHERE jobqueue_jobs.id = :in_job
    AND (jobqueue_pauses.kind = 'task' AND jobqueue_pauses.name = jobqueue_jobs.task
        OR jobqueue_pauses.kind = 'tag'
        AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)
ORDER BY jobqueue_pauses.kind DESC, jobqueue_pauses.paused_at, jobqueue_pauses.name;
