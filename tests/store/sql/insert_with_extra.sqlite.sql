INSERT INTO jobqueue_jobs (task, queue, priority, args, tags, max_attempts, timeout, backoff, unique_key,
    unique_until, headers, scheduled_for, lane, lane_limit, lane_weight, lane_strict, awaited_key, state,
    run_at, deadline_at, expires_at)
SELECT input.task, input.queue, input.priority, input.args, input.tags, input.max_attempts, input.timeout,
    input.backoff, input.unique_key, input.unique_until, input.headers, input.scheduled_for, input.lane,
    input.lane_limit, input.lane_weight, input.lane_strict, input.awaited_key, CASE
    WHEN (input.awaited_key IS NOT NULL) THEN 'scheduled' ELSE CASE
    WHEN (input.delay > 0 OR input.at IS NOT NULL
        AND input.at > strftime('%Y-%m-%d %H:%M:%f000', 'now')) THEN 'scheduled'
    ELSE 'available' END END AS anon_1,
    coalesce(input.at, CASE
        WHEN (input.delay IS NOT NULL) THEN strftime('%Y-%m-%d %H:%M:%f000', 'now', printf('%+.3f seconds',
            input.delay))
        ELSE strftime('%Y-%m-%d %H:%M:%f000', 'now') END) AS coalesce_1,
    CASE
    WHEN (input.deadline IS NOT NULL) THEN strftime('%Y-%m-%d %H:%M:%f000', 'now',
        printf('%+.3f seconds', input.deadline))
    ELSE NULL END AS anon_2, CASE
    WHEN (input.expires IS NOT NULL) THEN strftime('%Y-%m-%d %H:%M:%f000', 'now',
        printf('%+.3f seconds', input.expires))
    ELSE NULL END AS anon_3
FROM (
    SELECT anon_4."key" AS place, json_extract(anon_4.value, '$[0]') AS task,
        json_extract(anon_4.value, '$[1]') AS queue, json_extract(anon_4.value, '$[2]') AS priority,
        json_extract(anon_4.value, '$[3]') AS args, json_extract(anon_4.value, '$[4]') AS tags,
        json_extract(anon_4.value, '$[5]') AS delay, json_extract(anon_4.value, '$[6]') AS at,
        json_extract(anon_4.value, '$[7]') AS max_attempts, json_extract(anon_4.value, '$[8]') AS timeout,
        json_extract(anon_4.value, '$[9]') AS backoff, json_extract(anon_4.value, '$[10]') AS unique_key,
        json_extract(anon_4.value, '$[11]') AS unique_until, json_extract(anon_4.value, '$[12]') AS deadline,
        json_extract(anon_4.value, '$[13]') AS headers, json_extract(anon_4.value, '$[14]') AS scheduled_for,
        json_extract(anon_4.value, '$[15]') AS lane, json_extract(anon_4.value, '$[16]') AS lane_limit,
        json_extract(anon_4.value, '$[17]') AS lane_weight,
        json_extract(anon_4.value, '$[18]') AS lane_strict, json_extract(anon_4.value, '$[19]') AS expires,
        json_extract(anon_4.value, '$[20]') AS awaited_key
    FROM json_each(:in_rows) AS anon_4
) AS input
WHERE input.place >= 0
ORDER BY input.place
ON CONFLICT DO NOTHING
RETURNING id, unique_key;
