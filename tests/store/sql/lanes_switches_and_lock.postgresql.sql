SELECT jobqueue_queues.paused_at, jobqueue_queues.max_running, jobqueue_queues.rate_count,
    jobqueue_queues.rate_period, jobqueue_queues.rate_burst, jobqueue_queues.fair,
    CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) AS present,
    EXISTS (SELECT * FROM jobqueue_pauses WHERE jobqueue_pauses.name IS NOT NULL) AS is_any_paused,
    (SELECT count(*) AS count_1 FROM (
    SELECT jobqueue_lanes.name AS name
    FROM jobqueue_lanes
    WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue::VARCHAR AND jobqueue_lanes.parked = 0
    LIMIT :in_limit::INTEGER + 1
) AS "some") AS unparked, locked.name, locked.turn, locked.is_first
FROM (
    SELECT 1 AS one
) AS one LEFT OUTER JOIN jobqueue_queues ON jobqueue_queues.name = :in_queue::VARCHAR LEFT OUTER JOIN (SELECT first.name AS name,
    first.turn AS turn, 1 AS is_first FROM (
    SELECT jobqueue_lanes.name AS name, jobqueue_lanes.turn AS turn
    FROM jobqueue_lanes
    WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue::VARCHAR AND jobqueue_lanes.parked = 0
    ORDER BY jobqueue_lanes.priority, jobqueue_lanes.due_at
    LIMIT :in_limit::INTEGER
    FOR UPDATE SKIP LOCKED
) AS first UNION ALL SELECT given.name AS name, given.turn AS turn, 0 AS is_first FROM (
    SELECT jobqueue_lanes.name AS name, jobqueue_lanes.turn AS turn
    FROM jobqueue_lanes
    WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue::VARCHAR
        AND jobqueue_lanes.name = ANY (array((SELECT anon_1.name FROM unnest((SELECT CAST(:in_name::VARCHAR AS TEXT[]) AS anon_2)) WITH ORDINALITY AS anon_1(name, place))))
    FOR UPDATE SKIP LOCKED
) AS given) AS locked ON true;
