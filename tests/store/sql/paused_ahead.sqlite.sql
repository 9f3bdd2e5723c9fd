SELECT jobqueue_jobs.queue, jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id,
    NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
    OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
        AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag'
        AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)) AS is_unpaused
FROM jobqueue_jobs
WHERE jobqueue_jobs.id IN (SELECT found.id FROM (
    SELECT anon_1."key" AS place, json_extract(anon_1.value, '$[0]') AS queue,
        json_extract(anon_1.value, '$[1]') AS priority, json_extract(anon_1.value, '$[2]') AS run_at,
        json_extract(anon_1.value, '$[3]') AS id
    FROM json_each(:in_rows) AS anon_1
) AS input JOIN jobqueue_jobs AS found ON found.id IN (SELECT (SELECT some.id FROM (
    SELECT anon_2.id AS id, anon_2.task AS task, anon_2.tags AS tags
    FROM (
        SELECT same.id AS id, same.task AS task, same.tags AS tags
        FROM jobqueue_jobs AS same
        WHERE same.state = 'available' AND same.lane IS NULL AND same.queue = input.queue
            AND same.priority = input.priority AND same.run_at = input.run_at AND same.id > input.id
        ORDER BY same.run_at, same.id
        LIMIT :in_most OFFSET 0
    ) AS anon_2 UNION ALL
    SELECT anon_3.id AS id, anon_3.task AS task, anon_3.tags AS tags
    FROM (
        SELECT later.id AS id, later.task AS task, later.tags AS tags
        FROM jobqueue_jobs AS later
        WHERE later.state = 'available' AND later.lane IS NULL AND later.queue = input.queue
            AND later.priority = input.priority AND later.run_at > input.run_at
        ORDER BY later.run_at, later.id
        LIMIT :in_most OFFSET 0
    ) AS anon_3
    LIMIT :in_most OFFSET 0
) AS some LIMIT 1 OFFSET :in_most_but_one) AS id));
