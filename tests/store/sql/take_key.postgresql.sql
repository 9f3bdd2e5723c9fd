UPDATE jobqueue_jobs
SET state=CASE WHEN (jobqueue_jobs.run_at > clock_timestamp()) THEN jobqueue_jobs.state ELSE 'available' END,
    run_at=CASE WHEN (jobqueue_jobs.run_at > clock_timestamp()) THEN jobqueue_jobs.run_at
    ELSE clock_timestamp() END, unique_key=jobqueue_jobs.awaited_key, awaited_key=NULL
WHERE jobqueue_jobs.id = :in_job::BIGINT AND awaited_key IS NOT NULL AND state = 'scheduled'
    AND NOT (EXISTS (SELECT holder.id FROM jobqueue_jobs AS holder WHERE holder.unique_key = jobqueue_jobs.awaited_key
        AND (holder.unique_until = 'deleted' OR holder.unique_until = 'finished' AND holder.state IN ('scheduled', 'available', 'running') OR holder.unique_until = 'started' AND holder.key_released = 0 AND holder.state IN ('scheduled', 'available', 'running'))))
RETURNING jobqueue_jobs.id;
