SELECT jobqueue_lanes.name, jobqueue_lanes.turn, (SELECT count(*) AS count_1 FROM (
    SELECT jobqueue_lanes.name AS name
    FROM jobqueue_lanes
    WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue AND jobqueue_lanes.parked = 0
        AND (jobqueue_lanes.priority, jobqueue_lanes.due_at) < (:in_priority, :in_due_at)
    ORDER BY jobqueue_lanes.priority, jobqueue_lanes.due_at
    LIMIT 10001 OFFSET 0
) AS some) AS total
FROM jobqueue_lanes
WHERE jobqueue_lanes.kind = 0 AND jobqueue_lanes.queue = :in_queue AND jobqueue_lanes.parked = 0
    AND (jobqueue_lanes.priority, jobqueue_lanes.due_at) < (:in_priority, :in_due_at)
ORDER BY jobqueue_lanes.priority, jobqueue_lanes.due_at
LIMIT :in_limit OFFSET 0;
