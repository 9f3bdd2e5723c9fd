INSERT INTO jobqueue_error_counts (hour, error_id, task, error_type, place, message, attempts, failed,
    first_at, last_at)
VALUES (strftime('%Y-%m-%d %H:00:00.000000', 'now'), :error_id, :task, :error_type, :place, :message,
    :attempts, :failed, strftime('%Y-%m-%d %H:%M:%f000', 'now'), strftime('%Y-%m-%d %H:%M:%f000', 'now'));
