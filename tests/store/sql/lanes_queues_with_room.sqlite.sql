SELECT jobqueue_lanes.name
FROM jobqueue_lanes JOIN jobqueue_queues ON jobqueue_queues.name = jobqueue_lanes.name LEFT OUTER JOIN (SELECT jobqueue_jobs.queue AS queue,
    count(*) AS running FROM jobqueue_jobs WHERE jobqueue_jobs.worker_id BETWEEN 1
    AND 9223372036854775807 GROUP BY jobqueue_jobs.queue) AS held ON held.queue = jobqueue_lanes.name
WHERE jobqueue_lanes.kind = 1 AND jobqueue_lanes.parked = 1
    AND jobqueue_lanes.next_start <= ((julianday('now') - 2440587.5) * 86400.0) AND CASE
    WHEN (CAST(jobqueue_queues.max_running AS INTEGER) != jobqueue_queues.max_running) THEN 0
    ELSE CAST(jobqueue_queues.max_running AS INTEGER) END > coalesce(held.running, 0);
