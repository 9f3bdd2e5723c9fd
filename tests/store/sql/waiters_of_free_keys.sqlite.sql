SELECT jobqueue_jobs.id
FROM jobqueue_jobs
WHERE awaited_key IS NOT NULL AND state = 'scheduled'
    AND NOT (EXISTS (SELECT holder.id FROM jobqueue_jobs AS holder WHERE holder.unique_key = jobqueue_jobs.awaited_key
        AND (holder.unique_until = 'deleted' OR holder.unique_until = 'finished' AND holder.state IN ('scheduled', 'available', 'running') OR holder.unique_until = 'started' AND holder.key_released = 0 AND holder.state IN ('scheduled', 'available', 'running'))))
LIMIT :in_limit OFFSET 0;
