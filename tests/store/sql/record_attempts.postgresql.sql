INSERT INTO jobqueue_attempts (job_id, fence, attempt, worker, started_at, finished_at, outcome, error_type,
    error_message, traceback, exit_signal, peak_memory, error_signature)
VALUES (:job_id::BIGINT, :fence::BIGINT, :attempt::INTEGER, :worker::VARCHAR,
    :started_at::TIMESTAMP WITH TIME ZONE, clock_timestamp(), :outcome::VARCHAR, :error_type::VARCHAR,
    :error_message::VARCHAR, :traceback::VARCHAR, :exit_signal::VARCHAR, :peak_memory::BIGINT,
    :error_signature::VARCHAR)
ON CONFLICT DO NOTHING;
