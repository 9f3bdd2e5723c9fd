SELECT jobqueue_lanes.queue, jobqueue_lanes.priority, jobqueue_lanes.due_at, jobqueue_lanes.turn
FROM jobqueue_lanes
WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.name = :in_lane::VARCHAR;
