UPDATE jobqueue_lanes
SET parked=0
WHERE jobqueue_lanes.name IN (SELECT jobqueue_lanes.name FROM jobqueue_lanes WHERE jobqueue_lanes.parked = 1 ORDER BY jobqueue_lanes.name)
    AND jobqueue_lanes.parked = 1
RETURNING name, queue;
