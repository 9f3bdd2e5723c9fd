UPDATE jobqueue_jobs
SET state='running', attempt=(jobqueue_jobs.attempt + 1), fence=(jobqueue_jobs.fence + 1),
    worker_id=:in_worker, worker=:in_worker_name,
    started_at=(SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now') AS anon_1)
WHERE jobqueue_jobs.id IN (SELECT listed.value AS id FROM (
    SELECT input.place AS place, input.queue AS queue, input.priority AS priority, input.run_at AS run_at,
        input.id AS id, input.last_priority AS last_priority, input.last_run_at AS last_run_at,
        input.last_id AS last_id
    FROM (
        SELECT anon_2."key" AS place, json_extract(anon_2.value, '$[0]') AS queue,
            json_extract(anon_2.value, '$[1]') AS priority, json_extract(anon_2.value, '$[2]') AS run_at,
            json_extract(anon_2.value, '$[3]') AS id, json_extract(anon_2.value, '$[4]') AS last_priority,
            json_extract(anon_2.value, '$[5]') AS last_run_at, json_extract(anon_2.value, '$[6]') AS last_id
        FROM json_each(:in_rows) AS anon_2
    ) AS input
    WHERE NOT (EXISTS (SELECT * FROM jobqueue_queues WHERE jobqueue_queues.name = input.queue
        AND (jobqueue_queues.paused_at IS NOT NULL OR jobqueue_queues.max_running IS NOT NULL OR jobqueue_queues.rate_count IS NOT NULL OR jobqueue_queues.fair = 1)))
        AND (EXISTS (SELECT * FROM jobqueue_workers WHERE jobqueue_workers.id = :in_worker))
    ORDER BY input.place
) AS given_queue JOIN json_each((SELECT json_group_array(first_of_each.id) AS json_group_array_1 FROM (
    SELECT other.id AS id
    FROM jobqueue_jobs AS other
    WHERE other.state = 'available' AND other.lane IS NULL AND other.queue = given_queue.queue
        AND (other.priority, other.run_at, other.id) > (given_queue.priority, given_queue.run_at,
            given_queue.id)
        AND (other.priority, other.run_at, other.id) <= (given_queue.last_priority, given_queue.last_run_at,
            given_queue.last_id)
        AND (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
            OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
                AND jobqueue_pauses.name = other.task OR jobqueue_pauses.kind = 'tag'
                AND replace(other.tags, '"' || jobqueue_pauses.name || '"', '') != other.tags)))
    ORDER BY other.priority, other.run_at, other.id
    LIMIT :in_share OFFSET 0
) AS first_of_each)) AS listed ON 1 = 1 LIMIT :in_limit OFFSET 0)
RETURNING id AS id, fence AS fence, task AS task, queue AS queue, args AS args, attempt AS attempt,
    max_attempts AS max_attempts, run_at AS run_at, started_at AS started_at, timeout AS timeout,
    headers AS headers, priority AS priority, CASE
    WHEN (coalesce(base_max_attempts, max_attempts) != 1 AND snoozes + crashes + child_crashes = 0
        AND coalesce(unique_until, '') != 'started' AND coalesce(backoff, NULL) IS NULL
        AND coalesce(deadline_at, scheduled_for, expires_at) IS NULL) THEN NULL
    ELSE json_array(CAST(backoff AS TEXT), CAST(snoozes AS INTEGER), CAST(crashes AS INTEGER),
        CAST(child_crashes AS INTEGER), coalesce(base_max_attempts, max_attempts) = 1 OR crashes > 0
        OR coalesce(unique_until, '') = 'started' OR coalesce(expires_at, NULL) IS NOT NULL,
        coalesce(base_max_attempts, max_attempts) = 1, coalesce(unique_until, '') = 'started'
        AND key_released = 0, CAST(deadline_at AS TEXT), CAST(scheduled_for AS TEXT),
        CAST(expires_at AS TEXT)) END AS rare;
