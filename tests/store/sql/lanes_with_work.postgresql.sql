SELECT DISTINCT jobqueue_lanes.queue
FROM jobqueue_lanes
WHERE jobqueue_lanes.parked = 0
LIMIT :in_limit::INTEGER;
