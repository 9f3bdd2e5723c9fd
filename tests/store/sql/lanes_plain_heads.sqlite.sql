SELECT jobqueue_jobs.id, jobqueue_jobs.lane, jobqueue_jobs.priority, jobqueue_jobs.run_at,
    jobqueue_jobs.lane_limit, jobqueue_jobs.lane_weight, jobqueue_jobs.lane_strict
FROM jobqueue_jobs
WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane IS NULL AND jobqueue_jobs.queue = :in_queue
    AND (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
        OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
            AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag'
            AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)))
ORDER BY jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id
LIMIT :in_limit OFFSET 0;
