SELECT (SELECT min(jobqueue_jobs.run_at) AS min_1 FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'scheduled'
    AND jobqueue_jobs.awaited_key IS NULL) AS due,
    (SELECT min(jobqueue_jobs.expires_at) AS min_2 FROM jobqueue_jobs WHERE expires_at IS NOT NULL
        AND attempt = 0 AND snoozes = 0 AND crashes = 0
        AND (state = 'scheduled' OR state = 'available')) AS expiry,
    EXISTS (SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE awaited_key IS NOT NULL AND state = 'scheduled'
        AND NOT (EXISTS (SELECT holder.id FROM jobqueue_jobs AS holder WHERE holder.unique_key = jobqueue_jobs.awaited_key
            AND (holder.unique_until = 'deleted' OR holder.unique_until = 'finished' AND holder.state IN ('scheduled', 'available', 'running') OR holder.unique_until = 'started' AND holder.key_released = 0 AND holder.state IN ('scheduled', 'available', 'running'))))) AS freed,
    strftime('%Y-%m-%d %H:%M:%f000', 'now') AS present;
