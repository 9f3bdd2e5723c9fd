SELECT jobqueue_queues.name
FROM jobqueue_queues
WHERE (jobqueue_queues.max_running IS NOT NULL OR jobqueue_queues.rate_count IS NOT NULL
    OR jobqueue_queues.fair = 1)
    AND NOT (EXISTS (SELECT * FROM jobqueue_lanes WHERE jobqueue_lanes.kind = 1
        AND jobqueue_lanes.name = jobqueue_queues.name AND jobqueue_lanes.parked != 2))
    AND (EXISTS (SELECT some.task FROM (
    SELECT jobqueue_jobs.task AS task, jobqueue_jobs.tags AS tags
    FROM jobqueue_jobs
    WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane IS NULL
        AND jobqueue_jobs.queue = jobqueue_queues.name
    ORDER BY jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id
    LIMIT :in_most OFFSET 0
) AS some WHERE NOT (EXISTS (SELECT 1 FROM jobqueue_pauses)) OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
    AND jobqueue_pauses.name = some.task OR jobqueue_pauses.kind = 'tag'
    AND replace(some.tags, '"' || jobqueue_pauses.name || '"', '') != some.tags))));
