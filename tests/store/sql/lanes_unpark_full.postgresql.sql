UPDATE jobqueue_lanes
SET parked=0
WHERE jobqueue_lanes.name = ANY (array((SELECT jobqueue_lanes.name FROM jobqueue_lanes WHERE jobqueue_lanes.parked = 1 ORDER BY jobqueue_lanes.name FOR UPDATE SKIP LOCKED)))
    AND jobqueue_lanes.parked = 1
RETURNING jobqueue_lanes.name, jobqueue_lanes.queue;
