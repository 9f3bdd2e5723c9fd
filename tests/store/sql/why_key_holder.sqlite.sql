SELECT holder.id, holder.unique_key
FROM jobqueue_jobs AS holder, jobqueue_jobs
WHERE jobqueue_jobs.id = :in_job AND holder.unique_key = jobqueue_jobs.awaited_key
    AND (holder.unique_until = 'deleted' OR holder.unique_until = 'finished'
        AND holder.state IN ('scheduled', 'available', 'running') OR holder.unique_until = 'started'
        AND holder.key_released = 0 AND holder.state IN ('scheduled', 'available', 'running'));
