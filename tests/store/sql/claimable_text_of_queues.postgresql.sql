SELECT '[' || group_concat(found.claim) || ']' AS anon_1
FROM (
    SELECT CASE
        WHEN (coalesce(jobqueue_jobs.base_max_attempts, jobqueue_jobs.max_attempts) != 1
            AND jobqueue_jobs.snoozes + jobqueue_jobs.crashes + jobqueue_jobs.child_crashes = 0
            AND coalesce(jobqueue_jobs.unique_until, '') != 'started'
            AND coalesce(jobqueue_jobs.backoff, NULL) IS NULL
            AND coalesce(jobqueue_jobs.deadline_at, jobqueue_jobs.scheduled_for, jobqueue_jobs.expires_at) IS NULL) THEN json_array(jobqueue_jobs.id,
            jobqueue_jobs.fence + 1, CAST(jobqueue_jobs.task AS TEXT), CAST(jobqueue_jobs.queue AS TEXT),
            CAST(CASE WHEN (length(jobqueue_jobs.args) <= 10000) THEN jobqueue_jobs.args END AS TEXT),
            jobqueue_jobs.attempt + 1, jobqueue_jobs.max_attempts, jobqueue_jobs.run_at || 'Z',
            (SELECT clock_timestamp() AS anon_2) || 'Z', jobqueue_jobs.timeout,
            CAST(jobqueue_jobs.headers AS TEXT), jobqueue_jobs.priority, :in_worker)
        ELSE json_array(jobqueue_jobs.id, jobqueue_jobs.fence + 1, CAST(jobqueue_jobs.task AS TEXT),
            CAST(jobqueue_jobs.queue AS TEXT),
            CAST(CASE WHEN (length(jobqueue_jobs.args) <= 10000) THEN jobqueue_jobs.args END AS TEXT),
            jobqueue_jobs.attempt + 1, jobqueue_jobs.max_attempts, jobqueue_jobs.run_at || 'Z',
            (SELECT clock_timestamp() AS anon_2) || 'Z', jobqueue_jobs.timeout,
            CAST(jobqueue_jobs.headers AS TEXT), jobqueue_jobs.priority, :in_worker,
            CAST(jobqueue_jobs.backoff AS TEXT), CAST(jobqueue_jobs.snoozes AS INTEGER),
            CAST(jobqueue_jobs.crashes AS INTEGER), CAST(jobqueue_jobs.child_crashes AS INTEGER),
            json(CASE WHEN (coalesce(jobqueue_jobs.base_max_attempts, jobqueue_jobs.max_attempts) = 1
                OR jobqueue_jobs.crashes > 0 OR coalesce(jobqueue_jobs.unique_until, '') = 'started'
                OR coalesce(jobqueue_jobs.expires_at, NULL) IS NOT NULL) THEN 'true' ELSE 'false' END),
            json(CASE WHEN (coalesce(jobqueue_jobs.base_max_attempts,
                jobqueue_jobs.max_attempts) = 1) THEN 'true' ELSE 'false' END),
            json(CASE WHEN (coalesce(jobqueue_jobs.unique_until, '') = 'started'
                AND jobqueue_jobs.key_released = 0) THEN 'true' ELSE 'false' END),
            jobqueue_jobs.deadline_at || 'Z', jobqueue_jobs.scheduled_for || 'Z',
            jobqueue_jobs.expires_at || 'Z') END AS claim
    FROM (
        SELECT each.id AS id
        FROM (
            SELECT anon_3.place AS place, anon_3.queue AS queue, anon_3.priority AS priority,
                anon_3.run_at AS run_at, anon_3.id AS id
            FROM unnest((SELECT CAST(:in_queue::VARCHAR AS TEXT[]) AS anon_4),
                (SELECT CAST(:in_priority::VARCHAR AS INTEGER[]) AS anon_5),
                (SELECT CAST(:in_run_at::VARCHAR AS TIMESTAMP WITH TIME ZONE[]) AS anon_6),
                (SELECT CAST(:in_id::VARCHAR AS BIGINT[]) AS anon_7)) WITH ORDINALITY AS anon_3(queue,
                priority, run_at, id, place)
            WHERE NOT (EXISTS (SELECT * FROM jobqueue_queues WHERE jobqueue_queues.name = anon_3.queue
                AND (jobqueue_queues.paused_at IS NOT NULL OR jobqueue_queues.max_running IS NOT NULL OR jobqueue_queues.rate_count IS NOT NULL OR jobqueue_queues.fair = 1)))
                AND (EXISTS (SELECT * FROM jobqueue_workers WHERE jobqueue_workers.id = :in_worker::BIGINT))
            ORDER BY anon_3.place
        ) AS given_queue JOIN LATERAL (SELECT other.id AS id FROM jobqueue_jobs AS other WHERE other.state = 'available'
            AND other.lane IS NULL AND other.queue = given_queue.queue
            AND (other.priority, other.run_at, other.id) > (given_queue.priority, given_queue.run_at,
                given_queue.id)
            AND (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
                OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
                    AND jobqueue_pauses.name = other.task OR jobqueue_pauses.kind = 'tag'
                    AND replace(other.tags, '"' || jobqueue_pauses.name || '"', '') != other.tags))) ORDER BY other.priority,
            other.run_at, other.id LIMIT :in_share::INTEGER FOR UPDATE OF other SKIP LOCKED) AS each ON true
        LIMIT :in_limit::INTEGER
    ) AS chosen JOIN jobqueue_jobs ON jobqueue_jobs.id = chosen.id
) AS found;
