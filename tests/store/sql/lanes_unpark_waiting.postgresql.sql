UPDATE jobqueue_lanes
SET parked=0
WHERE jobqueue_lanes.name = ANY (array((SELECT jobqueue_lanes.name FROM jobqueue_lanes WHERE jobqueue_lanes.kind IN (0, 1)
    AND jobqueue_lanes.name = ANY (array((SELECT anon_1.name FROM unnest((SELECT CAST(:in_name::VARCHAR AS TEXT[]) AS anon_2)) WITH ORDINALITY AS anon_1(name, place)))) ORDER BY jobqueue_lanes.name FOR UPDATE)))
    AND jobqueue_lanes.kind IN (0, 1)
    AND jobqueue_lanes.name = ANY (array((SELECT anon_1.name FROM unnest((SELECT CAST(:in_name::VARCHAR AS TEXT[]) AS anon_2)) WITH ORDINALITY AS anon_1(name, place))))
RETURNING jobqueue_lanes.name, jobqueue_lanes.queue;
