UPDATE jobqueue_lanes
SET turn=:in_turn, plain_turn=:in_plain_turn, next_start=:in_next_start, parked=:in_parked,
    parked_until=(((julianday('now') - 2440587.5) * 86400.0) + :in_wait)
WHERE jobqueue_lanes.kind = 1 AND jobqueue_lanes.name = :in_queue;
