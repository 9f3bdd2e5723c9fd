SELECT jobqueue_jobs.lane AS name, jobqueue_jobs.priority, jobqueue_jobs.run_at AS run_at, jobqueue_jobs.id,
    jobqueue_jobs.lane_limit, jobqueue_jobs.lane_weight, jobqueue_jobs.lane_strict,
    NOT (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
        OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
            AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag'
            AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags))) AS is_paused
FROM jobqueue_jobs
WHERE jobqueue_jobs.id = ANY (array((SELECT each.id FROM (
    SELECT anon_1.place AS place, anon_1.queue AS queue, anon_1.priority AS priority, anon_1.run_at AS run_at,
        anon_1.id AS id, last.run_at AS last_run_at, last.id AS last_id
    FROM unnest((SELECT CAST(:in_queue::VARCHAR AS TEXT[]) AS anon_2),
        (SELECT CAST(:in_priority::VARCHAR AS INTEGER[]) AS anon_3),
        (SELECT CAST(:in_run_at::VARCHAR AS TIMESTAMP WITH TIME ZONE[]) AS anon_4),
        (SELECT CAST(:in_id::VARCHAR AS BIGINT[]) AS anon_5)) WITH ORDINALITY AS anon_1(queue, priority,
        run_at, id,
        place) LEFT OUTER JOIN jobqueue_jobs AS last ON last.id = coalesce((SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane = anon_1.queue AND jobqueue_jobs.queue = :in_searched::VARCHAR AND jobqueue_jobs.priority = anon_1.priority AND jobqueue_jobs.run_at = anon_1.run_at AND jobqueue_jobs.id > anon_1.id ORDER BY jobqueue_jobs.run_at, jobqueue_jobs.id LIMIT 1 OFFSET :in_most_but_one::INTEGER),
        (SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane = anon_1.queue AND jobqueue_jobs.queue = :in_searched::VARCHAR AND jobqueue_jobs.priority = anon_1.priority AND jobqueue_jobs.run_at > anon_1.run_at ORDER BY jobqueue_jobs.run_at, jobqueue_jobs.id LIMIT 1 OFFSET :in_most_but_one::INTEGER))
) AS given_level JOIN LATERAL (SELECT "some".id AS id FROM (
    SELECT anon_6.id AS id
    FROM (
        SELECT jobqueue_jobs.id AS id
        FROM jobqueue_jobs
        WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane = given_level.queue
            AND jobqueue_jobs.queue = :in_searched::VARCHAR AND jobqueue_jobs.priority = given_level.priority
            AND jobqueue_jobs.run_at = given_level.run_at AND jobqueue_jobs.id > given_level.id
            AND jobqueue_jobs.id <= coalesce(CASE
                WHEN (given_level.last_run_at > given_level.run_at) THEN 9223372036854775807
                ELSE given_level.last_id END, 9223372036854775807)
            AND ((NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
                OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task' AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag' AND replace(jobqueue_jobs.tags,
                    '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)))
                AND coalesce(CASE WHEN (CAST(jobqueue_jobs.lane_limit AS INTEGER) != jobqueue_jobs.lane_limit) THEN 0 ELSE CAST(jobqueue_jobs.lane_limit AS INTEGER) END, 1) > 0
                OR jobqueue_jobs.lane_strict = 1)
        ORDER BY jobqueue_jobs.run_at, jobqueue_jobs.id
        LIMIT :in_limit::INTEGER
    ) AS anon_6 UNION ALL
    SELECT anon_7.id AS id
    FROM (
        SELECT jobqueue_jobs.id AS id
        FROM jobqueue_jobs
        WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane = given_level.queue
            AND jobqueue_jobs.queue = :in_searched::VARCHAR AND jobqueue_jobs.priority = given_level.priority
            AND jobqueue_jobs.run_at > given_level.run_at
            AND jobqueue_jobs.run_at < coalesce(given_level.last_run_at,
                :in_last_instant::TIMESTAMP WITH TIME ZONE)
            AND ((NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
                OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task' AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag' AND replace(jobqueue_jobs.tags,
                    '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)))
                AND coalesce(CASE WHEN (CAST(jobqueue_jobs.lane_limit AS INTEGER) != jobqueue_jobs.lane_limit) THEN 0 ELSE CAST(jobqueue_jobs.lane_limit AS INTEGER) END, 1) > 0
                OR jobqueue_jobs.lane_strict = 1)
        ORDER BY jobqueue_jobs.run_at, jobqueue_jobs.id
        LIMIT :in_limit::INTEGER
    ) AS anon_7 UNION ALL
    SELECT anon_8.id AS id
    FROM (
        SELECT jobqueue_jobs.id AS id
        FROM jobqueue_jobs
        WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane = given_level.queue
            AND jobqueue_jobs.queue = :in_searched::VARCHAR AND jobqueue_jobs.priority = given_level.priority
            AND jobqueue_jobs.run_at = CASE
            WHEN (given_level.last_run_at > given_level.run_at) THEN given_level.last_run_at END
            AND jobqueue_jobs.id <= given_level.last_id
            AND ((NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
                OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task' AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag' AND replace(jobqueue_jobs.tags,
                    '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)))
                AND coalesce(CASE WHEN (CAST(jobqueue_jobs.lane_limit AS INTEGER) != jobqueue_jobs.lane_limit) THEN 0 ELSE CAST(jobqueue_jobs.lane_limit AS INTEGER) END, 1) > 0
                OR jobqueue_jobs.lane_strict = 1)
        ORDER BY jobqueue_jobs.run_at, jobqueue_jobs.id
        LIMIT :in_limit::INTEGER
    ) AS anon_8 UNION ALL
    SELECT given_level.last_id AS id
) AS "some") AS each ON true)));
