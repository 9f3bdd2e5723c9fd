UPDATE jobqueue_lanes
SET parked=0
WHERE jobqueue_lanes.name = ANY (array((SELECT jobqueue_lanes.name FROM jobqueue_lanes WHERE jobqueue_lanes.parked = 1
    AND jobqueue_lanes.parked_until <= CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) ORDER BY jobqueue_lanes.name FOR UPDATE SKIP LOCKED)))
    AND jobqueue_lanes.parked = 1
    AND jobqueue_lanes.parked_until <= CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)
RETURNING jobqueue_lanes.name;
