UPDATE jobqueue_lanes
SET parked=0
WHERE jobqueue_lanes.name IN (SELECT jobqueue_lanes.name FROM jobqueue_lanes WHERE jobqueue_lanes.parked = 2
    AND jobqueue_lanes.kind IN (0, 1) AND jobqueue_lanes.name IN (SELECT input.name FROM (
    SELECT anon_1."key" AS place, anon_1.value AS name
    FROM json_each(:in_rows) AS anon_1
) AS input) ORDER BY jobqueue_lanes.name) AND jobqueue_lanes.parked = 2 AND jobqueue_lanes.kind IN (0, 1) AND jobqueue_lanes.name IN (SELECT input.name FROM (
    SELECT anon_1."key" AS place, anon_1.value AS name
    FROM json_each(:in_rows) AS anon_1
) AS input)
RETURNING name, queue;
