UPDATE jobqueue_lanes
SET priority=input.priority, due_at=input.due_at, turn=input.turn, parked=input.parked,
    parked_until=(((julianday('now') - 2440587.5) * 86400.0) + input.wait)
FROM (
    SELECT anon_1."key" AS place, json_extract(anon_1.value, '$[0]') AS kind,
        json_extract(anon_1.value, '$[1]') AS name, json_extract(anon_1.value, '$[2]') AS turn,
        json_extract(anon_1.value, '$[3]') AS priority, json_extract(anon_1.value, '$[4]') AS due_at,
        json_extract(anon_1.value, '$[5]') AS parked, json_extract(anon_1.value, '$[6]') AS wait
    FROM json_each(:in_rows) AS anon_1
) AS input
WHERE jobqueue_lanes.kind = input.kind AND jobqueue_lanes.name = input.name;
