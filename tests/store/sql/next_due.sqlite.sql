SELECT min(jobqueue_jobs.run_at) AS min_1
FROM jobqueue_jobs
WHERE jobqueue_jobs.state = 'scheduled';
