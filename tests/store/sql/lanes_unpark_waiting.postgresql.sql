UPDATE jobqueue_lanes
SET parked=0
FROM (
    SELECT jobqueue_lanes.kind AS kind, jobqueue_lanes.name AS name
    FROM jobqueue_lanes,
        unnest((SELECT CAST(:in_kind::VARCHAR AS SMALLINT[]) AS anon_2),
            (SELECT CAST(:in_name::VARCHAR AS TEXT[]) AS anon_3)) WITH ORDINALITY AS anon_1(kind, name, place)
    WHERE jobqueue_lanes.kind = anon_1.kind AND jobqueue_lanes.name = anon_1.name
    FOR UPDATE OF jobqueue_lanes
) AS locked
WHERE jobqueue_lanes.kind = locked.kind AND jobqueue_lanes.name = locked.name
RETURNING jobqueue_lanes.kind, jobqueue_lanes.name, jobqueue_lanes.queue;
