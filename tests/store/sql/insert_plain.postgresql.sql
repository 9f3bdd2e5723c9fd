INSERT INTO jobqueue_jobs (task, queue, priority, args, tags, max_attempts, timeout, backoff)
VALUES (:in_task::VARCHAR, :in_queue::VARCHAR, :in_priority::INTEGER, :in_args::VARCHAR, :in_tags::VARCHAR,
    :in_max_attempts::INTEGER, :in_timeout, :in_backoff::VARCHAR)
RETURNING jobqueue_jobs.id;
