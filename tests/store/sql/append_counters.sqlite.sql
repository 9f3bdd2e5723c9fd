INSERT INTO jobqueue_counters (minute, queue, task, succeeded, failed, cancelled, errored_attempts, runs,
    duration, duration_max, wait, wait_max)
VALUES (strftime('%Y-%m-%d %H:%M:00.000000', 'now'), :queue, :task, :succeeded, :failed, :cancelled,
    :errored_attempts, :runs, :duration, :duration_max, :wait, :wait_max);
