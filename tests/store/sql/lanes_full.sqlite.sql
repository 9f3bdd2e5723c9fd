SELECT jobqueue_lanes.kind, jobqueue_lanes.name
FROM jobqueue_lanes
WHERE jobqueue_lanes.parked = 1;
