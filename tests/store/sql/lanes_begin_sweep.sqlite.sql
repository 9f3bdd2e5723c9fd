UPDATE jobqueue_lanes
SET parked_until=(((julianday('now') - 2440587.5) * 86400.0) + :in_every)
WHERE jobqueue_lanes.kind = 2
    AND jobqueue_lanes.name IN (SELECT jobqueue_lanes.name FROM jobqueue_lanes WHERE jobqueue_lanes.kind = 2
        AND (jobqueue_lanes.parked_until <= ((julianday('now') - 2440587.5) * 86400.0) OR jobqueue_lanes.parked_until > ((julianday('now') - 2440587.5) * 86400.0) + 60.0));
