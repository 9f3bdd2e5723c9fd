SELECT jobqueue_lanes.turn, jobqueue_lanes.plain_turn, jobqueue_lanes.next_start
FROM jobqueue_lanes
WHERE jobqueue_lanes.kind = 1 AND jobqueue_lanes.name = :in_queue;
