UPDATE jobqueue_lanes
SET turn=:in_turn, plain_turn=:in_plain_turn, next_start=:in_next_start, parked=:in_parked::SMALLINT,
    parked_until=(CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) + :in_wait)
WHERE jobqueue_lanes.kind = 1 AND jobqueue_lanes.name = :in_queue::VARCHAR;
