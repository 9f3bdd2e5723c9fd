SELECT jobqueue_lanes.kind, jobqueue_lanes.name
FROM jobqueue_lanes
WHERE jobqueue_lanes.parked = 1
    AND (jobqueue_lanes.parked_until <= CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)
        OR jobqueue_lanes.parked_until > CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) + 60.0);
