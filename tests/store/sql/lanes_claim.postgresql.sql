UPDATE jobqueue_jobs
SET state='running', attempt=(jobqueue_jobs.attempt + 1), fence=(jobqueue_jobs.fence + 1),
    worker_id=:in_worker::BIGINT, worker=:in_worker_name::VARCHAR,
    started_at=(SELECT clock_timestamp() AS anon_1)
WHERE jobqueue_jobs.ctid = ANY (array((SELECT jobqueue_jobs.ctid AS id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
    AND jobqueue_jobs.id = ANY (array((SELECT anon_2.id FROM unnest((SELECT CAST(:in_id::VARCHAR AS BIGINT[]) AS anon_3)) WITH ORDINALITY AS anon_2(id, place))))
    AND NOT (EXISTS (SELECT * FROM jobqueue_queues WHERE jobqueue_queues.name = jobqueue_jobs.queue AND jobqueue_queues.paused_at IS NOT NULL))
    AND (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses)) OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task' AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag' AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags)))
    AND (EXISTS (SELECT * FROM jobqueue_workers WHERE jobqueue_workers.id = :in_worker::BIGINT)) ORDER BY jobqueue_jobs.id FOR UPDATE OF jobqueue_jobs SKIP LOCKED)))
RETURNING jobqueue_jobs.id AS id, jobqueue_jobs.fence AS fence, jobqueue_jobs.task AS task,
    jobqueue_jobs.queue AS queue, jobqueue_jobs.args AS args, jobqueue_jobs.attempt AS attempt,
    jobqueue_jobs.max_attempts AS max_attempts, jobqueue_jobs.run_at AS run_at,
    jobqueue_jobs.started_at AS started_at, jobqueue_jobs.timeout AS timeout,
    jobqueue_jobs.headers AS headers, jobqueue_jobs.priority AS priority, CASE
    WHEN (coalesce(jobqueue_jobs.base_max_attempts, jobqueue_jobs.max_attempts) != 1
        AND jobqueue_jobs.snoozes + jobqueue_jobs.crashes + jobqueue_jobs.child_crashes = 0
        AND coalesce(jobqueue_jobs.unique_until, '') != 'started'
        AND coalesce(jobqueue_jobs.backoff, NULL) IS NULL
        AND coalesce(jobqueue_jobs.deadline_at, jobqueue_jobs.scheduled_for, jobqueue_jobs.expires_at) IS NULL) THEN NULL
    ELSE CAST(json_build_array(CAST(jobqueue_jobs.backoff AS TEXT), CAST(jobqueue_jobs.snoozes AS INTEGER),
        CAST(jobqueue_jobs.crashes AS INTEGER), CAST(jobqueue_jobs.child_crashes AS INTEGER),
        coalesce(jobqueue_jobs.base_max_attempts, jobqueue_jobs.max_attempts) = 1 OR jobqueue_jobs.crashes > 0
        OR coalesce(jobqueue_jobs.unique_until, '') = 'started'
        OR coalesce(jobqueue_jobs.expires_at, NULL) IS NOT NULL,
        coalesce(jobqueue_jobs.base_max_attempts, jobqueue_jobs.max_attempts) = 1,
        coalesce(jobqueue_jobs.unique_until, '') = 'started' AND jobqueue_jobs.key_released = 0,
        CAST(jobqueue_jobs.deadline_at AS TIMESTAMP WITH TIME ZONE),
        CAST(jobqueue_jobs.scheduled_for AS TIMESTAMP WITH TIME ZONE),
        CAST(jobqueue_jobs.expires_at AS TIMESTAMP WITH TIME ZONE)) AS TEXT) END AS rare,
    jobqueue_jobs.lane;
