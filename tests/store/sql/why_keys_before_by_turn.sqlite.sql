SELECT jobqueue_lanes.name, jobqueue_lanes.turn
FROM jobqueue_lanes
WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue AND jobqueue_lanes.parked = 0
    AND jobqueue_lanes.turn < :in_turn AND jobqueue_lanes.name != :in_lane
ORDER BY jobqueue_lanes.turn
LIMIT 10001 OFFSET 0;
