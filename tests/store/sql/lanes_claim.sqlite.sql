UPDATE jobqueue_jobs
SET state='running', attempt=(jobqueue_jobs.attempt + 1), fence=(jobqueue_jobs.fence + 1),
    worker_id=:in_worker, worker=:in_worker_name,
    started_at=(SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now') AS anon_1)
WHERE jobqueue_jobs.id IN (SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
    AND jobqueue_jobs.id IN (SELECT input.id FROM (
    SELECT anon_2."key" AS place, anon_2.value AS id
    FROM json_each(:in_rows) AS anon_2
) AS input) AND NOT (EXISTS (SELECT * FROM jobqueue_queues WHERE jobqueue_queues.name = jobqueue_jobs.queue
    AND jobqueue_queues.paused_at IS NOT NULL)) AND (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses)) OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
        AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag'
        AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags))) AND (EXISTS (SELECT * FROM jobqueue_workers WHERE jobqueue_workers.id = :in_worker)) ORDER BY jobqueue_jobs.id)
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
        CAST(expires_at AS TEXT)) END AS rare,
    lane;
