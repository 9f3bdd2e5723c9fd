SELECT jobqueue_lanes.kind, jobqueue_lanes.name
FROM jobqueue_lanes,
    (SELECT anon_1."key" AS place, json_extract(anon_1.value, '$[0]') AS kind,
        json_extract(anon_1.value, '$[1]') AS name FROM json_each(:in_rows) AS anon_1) AS input
WHERE jobqueue_lanes.kind = input.kind AND jobqueue_lanes.name = input.name;
