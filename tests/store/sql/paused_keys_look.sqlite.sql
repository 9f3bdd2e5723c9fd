SELECT jobqueue_jobs.lane AS name, jobqueue_jobs.priority, jobqueue_jobs.run_at AS run_at, jobqueue_jobs.id,
    jobqueue_jobs.lane_limit, jobqueue_jobs.lane_weight, jobqueue_jobs.lane_strict,
    NOT (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
        OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
            AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag'
            AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags))) AS is_paused
FROM jobqueue_jobs
WHERE jobqueue_jobs.id IN (SELECT found.id FROM (
    SELECT input.place AS place, input.queue AS queue, input.priority AS priority, input.run_at AS run_at,
        input.id AS id, last.run_at AS last_run_at, last.id AS last_id
    FROM (
        SELECT anon_1."key" AS place, json_extract(anon_1.value, '$[0]') AS queue,
            json_extract(anon_1.value, '$[1]') AS priority, json_extract(anon_1.value, '$[2]') AS run_at,
            json_extract(anon_1.value, '$[3]') AS id
        FROM json_each(:in_rows) AS anon_1
    ) AS input LEFT OUTER JOIN jobqueue_jobs AS last ON last.id = coalesce((SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
        AND jobqueue_jobs.lane = input.queue AND jobqueue_jobs.queue = :in_searched
        AND jobqueue_jobs.priority = input.priority AND jobqueue_jobs.run_at = input.run_at
        AND jobqueue_jobs.id > input.id ORDER BY jobqueue_jobs.run_at,
        jobqueue_jobs.id LIMIT 1 OFFSET :in_most_but_one),
        (SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
            AND jobqueue_jobs.lane = input.queue AND jobqueue_jobs.queue = :in_searched
            AND jobqueue_jobs.priority = input.priority
            AND jobqueue_jobs.run_at > input.run_at ORDER BY jobqueue_jobs.run_at,
            jobqueue_jobs.id LIMIT 1 OFFSET :in_most_but_one))
) AS given_level JOIN jobqueue_jobs AS found ON found.id IN (SELECT some.id FROM (
    SELECT anon_2.id AS id
    FROM (
        SELECT jobqueue_jobs.id AS id
        FROM jobqueue_jobs
        WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane = given_level.queue
            AND jobqueue_jobs.queue = :in_searched AND jobqueue_jobs.priority = given_level.priority
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
        LIMIT :in_limit OFFSET 0
    ) AS anon_2 UNION ALL
    SELECT anon_3.id AS id
    FROM (
        SELECT jobqueue_jobs.id AS id
        FROM jobqueue_jobs
        WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane = given_level.queue
            AND jobqueue_jobs.queue = :in_searched AND jobqueue_jobs.priority = given_level.priority
            AND jobqueue_jobs.run_at > given_level.run_at
            AND jobqueue_jobs.run_at < coalesce(given_level.last_run_at, :in_last_instant)
            AND ((NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
                OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task' AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag' AND replace(jobqueue_jobs.tags,
                    '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)))
                AND coalesce(CASE WHEN (CAST(jobqueue_jobs.lane_limit AS INTEGER) != jobqueue_jobs.lane_limit) THEN 0 ELSE CAST(jobqueue_jobs.lane_limit AS INTEGER) END, 1) > 0
                OR jobqueue_jobs.lane_strict = 1)
        ORDER BY jobqueue_jobs.run_at, jobqueue_jobs.id
        LIMIT :in_limit OFFSET 0
    ) AS anon_3 UNION ALL
    SELECT anon_4.id AS id
    FROM (
        SELECT jobqueue_jobs.id AS id
        FROM jobqueue_jobs
        WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane = given_level.queue
            AND jobqueue_jobs.queue = :in_searched AND jobqueue_jobs.priority = given_level.priority
            AND jobqueue_jobs.run_at = CASE
            WHEN (given_level.last_run_at > given_level.run_at) THEN given_level.last_run_at END
            AND jobqueue_jobs.id <= given_level.last_id
            AND ((NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
                OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task' AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag' AND replace(jobqueue_jobs.tags,
                    '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)))
                AND coalesce(CASE WHEN (CAST(jobqueue_jobs.lane_limit AS INTEGER) != jobqueue_jobs.lane_limit) THEN 0 ELSE CAST(jobqueue_jobs.lane_limit AS INTEGER) END, 1) > 0
                OR jobqueue_jobs.lane_strict = 1)
        ORDER BY jobqueue_jobs.run_at, jobqueue_jobs.id
        LIMIT :in_limit OFFSET 0
    ) AS anon_4 UNION ALL
    SELECT given_level.last_id AS id
) AS some));
