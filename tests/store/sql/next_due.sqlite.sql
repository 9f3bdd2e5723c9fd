SELECT min(jobqueue_jobs.run_at) AS due, strftime('%Y-%m-%d %H:%M:%f000', 'now') AS present
FROM jobqueue_jobs
WHERE jobqueue_jobs.state = 'scheduled';
