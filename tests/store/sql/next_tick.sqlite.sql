SELECT min(jobqueue_schedules.next_at) AS due, strftime('%Y-%m-%d %H:%M:%f000', 'now') AS present
FROM jobqueue_schedules
WHERE jobqueue_schedules.paused_at IS NULL;
