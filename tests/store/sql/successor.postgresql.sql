SELECT jobqueue_jobs.id
FROM jobqueue_jobs
WHERE jobqueue_jobs.awaited_key = :in_unique_key::VARCHAR AND awaited_key IS NOT NULL AND state = 'scheduled';
