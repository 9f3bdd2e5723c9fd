INSERT INTO jobqueue_error_counts (hour, error_id, task, error_type, place, message, attempts, failed,
    first_at, last_at)
VALUES (date_trunc('hour', clock_timestamp(), 'UTC'), :error_id::VARCHAR, :task::VARCHAR,
    :error_type::VARCHAR, :place::VARCHAR, :message::VARCHAR, :attempts::BIGINT, :failed::BIGINT,
    clock_timestamp(), clock_timestamp())
RETURNING jobqueue_error_counts.id;
