SELECT jobqueue_queues.name,
    EXISTS (SELECT * FROM jobqueue_pauses WHERE jobqueue_pauses.name IS NOT NULL) AS is_any_paused
FROM jobqueue_queues
WHERE (jobqueue_queues.max_running IS NOT NULL OR jobqueue_queues.rate_count IS NOT NULL
    OR jobqueue_queues.fair = 1)
    AND jobqueue_queues.paused_at IS NULL
    AND NOT (EXISTS (SELECT * FROM jobqueue_lanes WHERE jobqueue_lanes.kind = 1
        AND jobqueue_lanes.name = jobqueue_queues.name AND jobqueue_lanes.parked != 2))
    AND (EXISTS (SELECT * FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
        AND jobqueue_jobs.lane IS NULL AND jobqueue_jobs.queue = jobqueue_queues.name));
