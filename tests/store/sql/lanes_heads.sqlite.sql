SELECT jobqueue_jobs.id, jobqueue_jobs.lane, jobqueue_jobs.priority, jobqueue_jobs.run_at,
    jobqueue_jobs.lane_limit, jobqueue_jobs.lane_weight, jobqueue_jobs.lane_strict,
    NOT (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
        OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
            AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag'
            AND replace(jobqueue_jobs.tags, '"' || jobqueue_pauses.name || '"', '') != jobqueue_jobs.tags))) AS is_paused
FROM jobqueue_jobs
WHERE jobqueue_jobs.id IN (SELECT found.id FROM (
    SELECT anon_1."key" AS place, anon_1.value AS name
    FROM json_each(:in_rows) AS anon_1
) AS input JOIN jobqueue_jobs AS found ON found.id IN (SELECT other.id FROM jobqueue_jobs AS other WHERE other.state = 'available'
    AND other.lane = input.name AND other.queue = :in_queue
    AND (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
        OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task'
            AND jobqueue_pauses.name = other.task OR jobqueue_pauses.kind = 'tag'
            AND replace(other.tags, '"' || jobqueue_pauses.name || '"', '') != other.tags))
        OR other.lane_strict = 1) ORDER BY other.priority,
    other.run_at, other.id LIMIT :in_limit OFFSET 0));
