SELECT coalesce(max(jobqueue_jobs.id), 0) AS coalesce_1
FROM jobqueue_jobs;
