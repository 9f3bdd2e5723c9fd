SELECT jobqueue_lanes.kind, jobqueue_lanes.name, jobqueue_lanes.queue, jobqueue_lanes.priority,
    jobqueue_lanes.due_at
FROM jobqueue_lanes;
