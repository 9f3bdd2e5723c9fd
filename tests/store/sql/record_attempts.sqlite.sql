INSERT INTO jobqueue_attempts (job_id, fence, attempt, worker, started_at, finished_at, outcome, error_type,
    error_message, traceback, exit_signal, peak_memory, error_signature)
VALUES (:job_id, :fence, :attempt, :worker, :started_at, strftime('%Y-%m-%d %H:%M:%f000', 'now'), :outcome,
    :error_type, :error_message, :traceback, :exit_signal, :peak_memory, :error_signature)
ON CONFLICT DO NOTHING;
