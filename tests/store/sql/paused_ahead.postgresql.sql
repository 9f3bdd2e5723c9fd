SELECT jobqueue_jobs.queue, jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id,
    NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
    OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
        AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag'
        AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)) AS is_unpaused
FROM jobqueue_jobs
WHERE jobqueue_jobs.id = ANY (array((SELECT each.id FROM unnest((SELECT CAST(:in_queue::VARCHAR AS TEXT[]) AS anon_2), (SELECT CAST(:in_priority::VARCHAR AS INTEGER[]) AS anon_3), (SELECT CAST(:in_run_at::VARCHAR AS TIMESTAMP WITH TIME ZONE[]) AS anon_4), (SELECT CAST(:in_id::VARCHAR AS BIGINT[]) AS anon_5)) WITH ORDINALITY AS anon_1(queue, priority, run_at, id, place) JOIN LATERAL (SELECT (SELECT "some".id FROM (
    SELECT anon_6.id AS id, anon_6.task AS task, anon_6.tags AS tags
    FROM (
        SELECT same.id AS id, same.task AS task, same.tags AS tags
        FROM jobqueue_jobs AS same
        WHERE same.state = 'available' AND same.lane IS NULL AND same.queue = anon_1.queue
            AND same.priority = anon_1.priority AND same.run_at = anon_1.run_at AND same.id > anon_1.id
        ORDER BY same.run_at, same.id
        LIMIT :in_most::INTEGER
    ) AS anon_6 UNION ALL
    SELECT anon_7.id AS id, anon_7.task AS task, anon_7.tags AS tags
    FROM (
        SELECT later.id AS id, later.task AS task, later.tags AS tags
        FROM jobqueue_jobs AS later
        WHERE later.state = 'available' AND later.lane IS NULL AND later.queue = anon_1.queue
            AND later.priority = anon_1.priority AND later.run_at > anon_1.run_at
        ORDER BY later.run_at, later.id
        LIMIT :in_most::INTEGER
    ) AS anon_7
    LIMIT :in_most::INTEGER
) AS "some" LIMIT 1 OFFSET :in_most_but_one::INTEGER) AS id) AS each ON true)));
