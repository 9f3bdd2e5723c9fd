UPDATE jobqueue_lanes
SET parked=0
FROM (
    SELECT jobqueue_lanes.kind AS kind, jobqueue_lanes.name AS name
    FROM jobqueue_lanes
    WHERE jobqueue_lanes.parked = 1
    FOR UPDATE OF jobqueue_lanes SKIP LOCKED
) AS locked
WHERE jobqueue_lanes.kind = locked.kind AND jobqueue_lanes.name = locked.name
RETURNING jobqueue_lanes.kind, jobqueue_lanes.name, jobqueue_lanes.queue;
