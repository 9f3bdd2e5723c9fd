SELECT jobqueue_jobs.id, jobqueue_jobs.state
FROM jobqueue_jobs
WHERE lane IS NOT NULL AND fence > 0
    AND (state = 'running' OR lane_strict = 1 AND (state = 'scheduled' OR state = 'available'))
    AND jobqueue_jobs.lane = :in_lane::VARCHAR
LIMIT 100;
