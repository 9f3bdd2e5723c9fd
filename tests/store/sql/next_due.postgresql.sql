SELECT min(jobqueue_jobs.run_at) AS due, clock_timestamp() AS present
FROM jobqueue_jobs
WHERE jobqueue_jobs.state = 'scheduled';
