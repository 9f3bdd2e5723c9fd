SELECT DISTINCT jobqueue_lanes.queue
FROM jobqueue_lanes
WHERE jobqueue_lanes.parked = 0 AND jobqueue_lanes.kind != 2 AND jobqueue_lanes.queue > :in_after::VARCHAR
ORDER BY jobqueue_lanes.queue
LIMIT :in_limit::INTEGER;
