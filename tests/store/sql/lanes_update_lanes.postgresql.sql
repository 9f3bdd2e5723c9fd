UPDATE jobqueue_lanes
SET priority=anon_1.priority, due_at=anon_1.due_at, turn=anon_1.turn, parked=anon_1.parked,
    parked_until=(CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) + anon_1.wait)
FROM unnest((SELECT CAST(:in_kind::VARCHAR AS SMALLINT[]) AS anon_2),
    (SELECT CAST(:in_name::VARCHAR AS TEXT[]) AS anon_3),
    (SELECT CAST(:in_turn::VARCHAR AS DOUBLE PRECISION[]) AS anon_4),
    (SELECT CAST(:in_priority::VARCHAR AS INTEGER[]) AS anon_5),
    (SELECT CAST(:in_due_at::VARCHAR AS TIMESTAMP WITH TIME ZONE[]) AS anon_6),
    (SELECT CAST(:in_parked::VARCHAR AS SMALLINT[]) AS anon_7),
    (SELECT CAST(:in_wait::VARCHAR AS DOUBLE PRECISION[]) AS anon_8)) WITH ORDINALITY AS anon_1(kind, name,
    turn, priority, due_at, parked, wait, place)
WHERE jobqueue_lanes.kind = anon_1.kind AND jobqueue_lanes.name = anon_1.name;
