WITH done AS (UPDATE jobqueue_jobs SET state=CASE
    WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL) THEN 'cancelled' ELSE 'succeeded' END, crashes=0,
    fence=(jobqueue_jobs.fence + 1), worker_id=NULL, reason=NULL, result=CASE
    WHEN (jobqueue_jobs.cancel_requested_at IS NOT NULL) THEN NULL ELSE input.result END,
    finished_at=(SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now') AS anon_4), child_crashes=0 FROM (
    SELECT anon_5."key" AS place, json_extract(anon_5.value, '$[0]') AS id,
        json_extract(anon_5.value, '$[1]') AS fence, json_extract(anon_5.value, '$[2]') AS result
    FROM json_each(:in_rows) AS anon_5
) AS input WHERE jobqueue_jobs.id = input.id AND jobqueue_jobs.fence = input.fence AND coalesce(jobqueue_jobs.worker_id,
    0) = :in_worker RETURNING id, state), added AS (INSERT INTO jobqueue_counters (minute, queue, task,
    succeeded, failed, cancelled, errored_attempts, runs, duration, duration_max, wait,
    wait_max) SELECT strftime('%Y-%m-%d %H:%M:00.000000',
    'now') AS anon_1, input.queue AS queue, input.task AS task, input.succeeded AS succeeded, input.failed AS failed, input.cancelled AS cancelled, input.errored_attempts AS errored_attempts, input.runs AS runs, input.duration AS duration, input.duration_max AS duration_max, input.wait AS wait, input.wait_max AS wait_max FROM (
    SELECT anon_2."key" AS place, json_extract(anon_2.value, '$[0]') AS queue,
        json_extract(anon_2.value, '$[1]') AS task, json_extract(anon_2.value, '$[2]') AS succeeded,
        json_extract(anon_2.value, '$[3]') AS failed, json_extract(anon_2.value, '$[4]') AS cancelled,
        json_extract(anon_2.value, '$[5]') AS errored_attempts, json_extract(anon_2.value, '$[6]') AS runs,
        json_extract(anon_2.value, '$[7]') AS duration, json_extract(anon_2.value, '$[8]') AS duration_max,
        json_extract(anon_2.value, '$[9]') AS wait, json_extract(anon_2.value, '$[10]') AS wait_max
    FROM json_each(:in_rows) AS anon_2
) AS input WHERE (SELECT count(*) FILTER (WHERE done.state = 'succeeded') = :in_expected AS anon_3 FROM done))
SELECT CASE WHEN (count(*) FILTER (WHERE done.state = 'succeeded') = :in_expected) THEN NULL
    ELSE coalesce(CAST(json_object_agg(done.id, done.state) AS TEXT), '{}') END AS anon_6
FROM done;
