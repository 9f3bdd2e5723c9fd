SELECT jobqueue_lanes.kind, jobqueue_lanes.name, jobqueue_lanes.queue
FROM jobqueue_lanes;
