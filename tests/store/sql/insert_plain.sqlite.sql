INSERT INTO jobqueue_jobs (task, queue, priority, args, tags, max_attempts, timeout, backoff)
VALUES (:in_task, :in_queue, :in_priority, :in_args, :in_tags, :in_max_attempts, :in_timeout, :in_backoff)
RETURNING id;
