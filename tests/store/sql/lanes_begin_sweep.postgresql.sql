UPDATE jobqueue_lanes
SET parked_until=(CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) + :in_every)
WHERE jobqueue_lanes.kind = 2
    AND jobqueue_lanes.name = ANY (array((SELECT jobqueue_lanes.name FROM jobqueue_lanes WHERE jobqueue_lanes.kind = 2
        AND (jobqueue_lanes.parked_until <= CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) OR jobqueue_lanes.parked_until > CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) + 60.0) FOR UPDATE SKIP LOCKED)));
