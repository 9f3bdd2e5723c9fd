SELECT coalesce(sum(recent.ended), 0) AS ended, min(recent.minute) AS since
FROM (
    SELECT part_written.minute AS minute, part_written.queue AS queue, part_written.ended AS ended
    FROM (
        SELECT jobqueue_counters.minute AS minute, jobqueue_counters.queue AS queue,
            jobqueue_counters.succeeded + jobqueue_counters.failed + jobqueue_counters.cancelled AS ended
        FROM jobqueue_counters
        WHERE jobqueue_counters.kind = 0
            AND jobqueue_counters.minute > (SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now',
                printf('%+.3f seconds', -3600.0)) AS anon_1)
        ORDER BY jobqueue_counters.minute DESC
        LIMIT 20000 OFFSET 0
    ) AS part_written UNION ALL
    SELECT part_period.minute AS minute, part_period.queue AS queue, part_period.ended AS ended
    FROM (
        SELECT jobqueue_counters.minute AS minute, jobqueue_counters.queue AS queue,
            jobqueue_counters.succeeded + jobqueue_counters.failed + jobqueue_counters.cancelled AS ended
        FROM jobqueue_counters
        WHERE jobqueue_counters.kind = 2
            AND jobqueue_counters.minute > (SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now',
                printf('%+.3f seconds', -3600.0)) AS anon_2)
        ORDER BY jobqueue_counters.minute DESC
        LIMIT 20000 OFFSET 0
    ) AS part_period
) AS recent
WHERE recent.queue = :in_queue;
