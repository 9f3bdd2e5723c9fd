SELECT jobqueue_lanes.name, jobqueue_lanes.turn, (SELECT count(*) AS count_1 FROM (
    SELECT jobqueue_lanes.name AS name
    FROM jobqueue_lanes
    WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue::VARCHAR AND jobqueue_lanes.parked = 0
        AND jobqueue_lanes.turn < :in_turn
    ORDER BY jobqueue_lanes.turn
    LIMIT 10001
) AS "some") AS total
FROM jobqueue_lanes
WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue::VARCHAR AND jobqueue_lanes.parked = 0
    AND jobqueue_lanes.turn < :in_turn
ORDER BY jobqueue_lanes.turn
LIMIT :in_limit::INTEGER;
