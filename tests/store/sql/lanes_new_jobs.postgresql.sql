SELECT jobqueue_jobs.lane, jobqueue_jobs.queue, jobqueue_jobs.priority, jobqueue_jobs.run_at
FROM jobqueue_jobs
WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane IS NOT NULL
    AND jobqueue_jobs.id > :in_after::BIGINT AND jobqueue_jobs.id > 0
    AND (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
        OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
            AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag'
            AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)))
    AND (NOT (EXISTS (SELECT * FROM jobqueue_lanes WHERE jobqueue_lanes.kind = 0
        AND jobqueue_lanes.name = jobqueue_jobs.lane))
        OR (EXISTS (SELECT * FROM jobqueue_lanes WHERE jobqueue_lanes.kind = 0
            AND jobqueue_lanes.name = jobqueue_jobs.lane AND jobqueue_lanes.parked = 1))
        AND (jobqueue_jobs.lane_limit IS NULL OR jobqueue_jobs.lane_limit > (SELECT count(*) AS count_1 FROM jobqueue_jobs AS begun WHERE lane IS NOT NULL
            AND fence > 0
            AND (state = 'running' OR lane_strict = 1 AND (state = 'scheduled' OR state = 'available'))
            AND begun.lane = jobqueue_jobs.lane)))
ORDER BY jobqueue_jobs.id
LIMIT :in_limit::INTEGER;
