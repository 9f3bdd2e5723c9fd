UPDATE jobqueue_lanes
SET queue=input.queue, priority=input.priority, due_at=input.due_at
FROM (
    SELECT anon_1."key" AS place, json_extract(anon_1.value, '$[0]') AS kind,
        json_extract(anon_1.value, '$[1]') AS name, json_extract(anon_1.value, '$[2]') AS queue,
        json_extract(anon_1.value, '$[3]') AS priority, json_extract(anon_1.value, '$[4]') AS due_at
    FROM json_each(:in_rows) AS anon_1
) AS input
WHERE jobqueue_lanes.kind = input.kind AND jobqueue_lanes.name = input.name
    AND jobqueue_lanes.name IN (SELECT jobqueue_lanes.name FROM jobqueue_lanes WHERE jobqueue_lanes.kind = 0
        AND jobqueue_lanes.name IN (SELECT input.name FROM (
    SELECT anon_1."key" AS place, json_extract(anon_1.value, '$[0]') AS kind,
        json_extract(anon_1.value, '$[1]') AS name, json_extract(anon_1.value, '$[2]') AS queue,
        json_extract(anon_1.value, '$[3]') AS priority, json_extract(anon_1.value, '$[4]') AS due_at
    FROM json_each(:in_rows) AS anon_1
) AS input));
