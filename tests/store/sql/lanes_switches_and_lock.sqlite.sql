SELECT jobqueue_queues.paused_at, jobqueue_queues.max_running, jobqueue_queues.rate_count,
    jobqueue_queues.rate_period, jobqueue_queues.rate_burst, jobqueue_queues.fair,
    ((julianday('now') - 2440587.5) * 86400.0) AS present,
    EXISTS (SELECT * FROM jobqueue_pauses WHERE jobqueue_pauses.name IS NOT NULL) AS is_any_paused,
    (SELECT count(*) AS count_1 FROM (
    SELECT jobqueue_lanes.name AS name
    FROM jobqueue_lanes
    WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue AND jobqueue_lanes.parked = 0
    LIMIT :in_limit + 1 OFFSET 0
) AS some) AS unparked, locked.name, locked.turn, locked.is_first
FROM (
    SELECT 1 AS one
) AS one LEFT OUTER JOIN jobqueue_queues ON jobqueue_queues.name = :in_queue LEFT OUTER JOIN (SELECT first.name AS name,
    first.turn AS turn, 1 AS is_first FROM (
    SELECT jobqueue_lanes.name AS name, jobqueue_lanes.turn AS turn
    FROM jobqueue_lanes
    WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue AND jobqueue_lanes.parked = 0
    ORDER BY jobqueue_lanes.priority, jobqueue_lanes.due_at
    LIMIT :in_limit OFFSET 0
) AS first UNION ALL SELECT given.name AS name, given.turn AS turn, 0 AS is_first FROM (
    SELECT jobqueue_lanes.name AS name, jobqueue_lanes.turn AS turn
    FROM jobqueue_lanes
    WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue
        AND jobqueue_lanes.name IN (SELECT input.name FROM (
        SELECT anon_1."key" AS place, anon_1.value AS name
        FROM json_each(:in_rows) AS anon_1
    ) AS input)
) AS given) AS locked ON 1 = 1;
