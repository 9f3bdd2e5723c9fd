SELECT jobqueue_lanes.name, jobqueue_lanes.turn
FROM jobqueue_lanes
WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue AND jobqueue_lanes.parked = 0
ORDER BY jobqueue_lanes.priority, jobqueue_lanes.due_at
LIMIT :in_limit OFFSET 0;
