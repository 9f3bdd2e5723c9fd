SELECT min(jobqueue_schedules.next_at) AS due, clock_timestamp() AS present
FROM jobqueue_schedules
WHERE jobqueue_schedules.paused_at IS NULL;
