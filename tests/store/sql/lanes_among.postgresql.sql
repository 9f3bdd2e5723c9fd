SELECT jobqueue_lanes.kind, jobqueue_lanes.name
FROM jobqueue_lanes,
    unnest((SELECT CAST(:in_kind::VARCHAR AS SMALLINT[]) AS anon_2),
        (SELECT CAST(:in_name::VARCHAR AS TEXT[]) AS anon_3)) WITH ORDINALITY AS anon_1(kind, name, place)
WHERE jobqueue_lanes.kind = anon_1.kind AND jobqueue_lanes.name = anon_1.name;
