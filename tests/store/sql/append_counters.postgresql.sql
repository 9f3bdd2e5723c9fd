INSERT INTO jobqueue_counters (minute, queue, task, succeeded, failed, cancelled, errored_attempts, runs,
    duration, duration_max, wait, wait_max)
VALUES (date_trunc('minute', clock_timestamp(), 'UTC'), :queue::VARCHAR, :task::VARCHAR, :succeeded::BIGINT,
    :failed::BIGINT, :cancelled::BIGINT, :errored_attempts::BIGINT, :runs::BIGINT, :duration, :duration_max,
    :wait, :wait_max)
RETURNING jobqueue_counters.id;
