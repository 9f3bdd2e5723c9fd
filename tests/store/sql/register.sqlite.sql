INSERT INTO jobqueue_workers (name, host, pid, boot_id, pid_namespace, process_started, wakeup_address,
    queues, tasks, concurrency, lease)
VALUES (:name, :host, :pid, :boot_id, :pid_namespace, :process_started, :wakeup_address, :queues, :tasks,
    :concurrency, :lease)
RETURNING id;
