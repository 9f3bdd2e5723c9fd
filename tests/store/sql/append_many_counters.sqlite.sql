INSERT INTO jobqueue_counters (minute, queue, task, succeeded, failed, cancelled, errored_attempts, runs,
    duration, duration_max, wait, wait_max)
SELECT strftime('%Y-%m-%d %H:%M:00.000000', 'now') AS anon_1, input.queue, input.task, input.succeeded,
    input.failed, input.cancelled, input.errored_attempts, input.runs, input.duration, input.duration_max,
    input.wait, input.wait_max
FROM (
    SELECT anon_2."key" AS place, json_extract(anon_2.value, '$[0]') AS queue,
        json_extract(anon_2.value, '$[1]') AS task, json_extract(anon_2.value, '$[2]') AS succeeded,
        json_extract(anon_2.value, '$[3]') AS failed, json_extract(anon_2.value, '$[4]') AS cancelled,
        json_extract(anon_2.value, '$[5]') AS errored_attempts, json_extract(anon_2.value, '$[6]') AS runs,
        json_extract(anon_2.value, '$[7]') AS duration, json_extract(anon_2.value, '$[8]') AS duration_max,
        json_extract(anon_2.value, '$[9]') AS wait, json_extract(anon_2.value, '$[10]') AS wait_max
    FROM json_each(:in_rows) AS anon_2
) AS input;
