INSERT INTO jobqueue_attempts (job_id, fence, attempt, worker, started_at, finished_at, outcome, error_type,
    error_message, traceback)
VALUES (:job_id::BIGINT, :fence::BIGINT, :attempt::INTEGER, :worker::VARCHAR,
    :started_at::TIMESTAMP WITH TIME ZONE, clock_timestamp(), :outcome::VARCHAR, :error_type::VARCHAR,
    :error_message::VARCHAR, :traceback::VARCHAR)
ON CONFLICT DO NOTHING;
