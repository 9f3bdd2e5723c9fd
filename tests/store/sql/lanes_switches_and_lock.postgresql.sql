SELECT jobqueue_queues.paused_at, jobqueue_queues.max_running, jobqueue_queues.rate_count,
    jobqueue_queues.rate_period, jobqueue_queues.rate_burst, jobqueue_queues.fair,
    CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) AS present,
    EXISTS (SELECT * FROM jobqueue_pauses WHERE jobqueue_pauses.name IS NOT NULL) AS is_any_paused,
    (SELECT count(*) AS count_1 FROM (
    SELECT jobqueue_lanes.name AS name
    FROM jobqueue_lanes
    WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue::VARCHAR AND jobqueue_lanes.parked = 0
    LIMIT :in_limit::INTEGER + 1
) AS "some") AS unparked, locked.name, locked.turn
FROM (
    SELECT 1 AS one
) AS one LEFT OUTER JOIN jobqueue_queues ON jobqueue_queues.name = :in_queue::VARCHAR LEFT OUTER JOIN (SELECT jobqueue_lanes.name AS name,
    jobqueue_lanes.turn AS turn FROM jobqueue_lanes WHERE jobqueue_lanes.kind = 0
    AND jobqueue_lanes.queue = :in_queue::VARCHAR
    AND jobqueue_lanes.parked = 0 ORDER BY jobqueue_lanes.priority,
    jobqueue_lanes.due_at LIMIT :in_limit::INTEGER FOR UPDATE SKIP LOCKED) AS locked ON true;
