UPDATE jobqueue_lanes
SET queue=anon_1.queue, priority=anon_1.priority, due_at=anon_1.due_at
FROM unnest((SELECT CAST(:in_kind::VARCHAR AS SMALLINT[]) AS anon_2),
    (SELECT CAST(:in_name::VARCHAR AS TEXT[]) AS anon_3),
    (SELECT CAST(:in_queue::VARCHAR AS TEXT[]) AS anon_4),
    (SELECT CAST(:in_priority::VARCHAR AS INTEGER[]) AS anon_5),
    (SELECT CAST(:in_due_at::VARCHAR AS TIMESTAMP WITH TIME ZONE[]) AS anon_6)) WITH ORDINALITY AS anon_1(kind,
    name, queue, priority, due_at, place)
WHERE jobqueue_lanes.kind = anon_1.kind AND jobqueue_lanes.name = anon_1.name
    AND jobqueue_lanes.name = ANY (array((SELECT jobqueue_lanes.name FROM jobqueue_lanes WHERE jobqueue_lanes.kind = 0
        AND jobqueue_lanes.name = ANY (array((SELECT anon_1.name FROM unnest((SELECT CAST(:in_kind::VARCHAR AS SMALLINT[]) AS anon_2), (SELECT CAST(:in_name::VARCHAR AS TEXT[]) AS anon_3), (SELECT CAST(:in_queue::VARCHAR AS TEXT[]) AS anon_4), (SELECT CAST(:in_priority::VARCHAR AS INTEGER[]) AS anon_5), (SELECT CAST(:in_due_at::VARCHAR AS TIMESTAMP WITH TIME ZONE[]) AS anon_6)) WITH ORDINALITY AS anon_1(kind, name, queue, priority, due_at, place)))) FOR UPDATE SKIP LOCKED)));
