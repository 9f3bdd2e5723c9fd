SELECT jobqueue_lanes.kind, jobqueue_lanes.name
FROM jobqueue_lanes
WHERE jobqueue_lanes.parked = 1
    AND (jobqueue_lanes.parked_until <= ((julianday('now') - 2440587.5) * 86400.0)
        OR jobqueue_lanes.parked_until > ((julianday('now') - 2440587.5) * 86400.0) + 60.0);
