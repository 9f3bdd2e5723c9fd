INSERT INTO jobqueue_workers (name, host, pid, boot_id, pid_namespace, process_started, wakeup_address,
    queues, tasks, concurrency, lease)
VALUES (:name::VARCHAR, :host::VARCHAR, :pid::INTEGER, :boot_id::VARCHAR, :pid_namespace::VARCHAR,
    :process_started, :wakeup_address::VARCHAR, :queues::VARCHAR, :tasks::VARCHAR, :concurrency::INTEGER,
    :lease)
RETURNING jobqueue_workers.id;
