UPDATE jobqueue_lanes
SET parked=0
FROM (
    SELECT jobqueue_lanes.kind AS kind, jobqueue_lanes.name AS name
    FROM jobqueue_lanes
    WHERE jobqueue_lanes.parked = 1
) AS locked
WHERE jobqueue_lanes.kind = locked.kind AND jobqueue_lanes.name = locked.name
RETURNING kind, name, queue;
