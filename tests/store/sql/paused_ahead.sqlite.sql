SELECT jobqueue_jobs.queue AS name, jobqueue_jobs.priority, jobqueue_jobs.run_at AS run_at, jobqueue_jobs.id
FROM jobqueue_jobs
WHERE jobqueue_jobs.id IN (SELECT found.id FROM (
    SELECT anon_1."key" AS place, json_extract(anon_1.value, '$[0]') AS queue,
        json_extract(anon_1.value, '$[1]') AS priority, json_extract(anon_1.value, '$[2]') AS run_at,
        json_extract(anon_1.value, '$[3]') AS id
    FROM json_each(:in_rows) AS anon_1
) AS input JOIN jobqueue_jobs AS found ON found.id IN (SELECT coalesce((SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available'
    AND jobqueue_jobs.lane IS NULL AND jobqueue_jobs.queue = input.queue
    AND jobqueue_jobs.priority = input.priority AND jobqueue_jobs.run_at = input.run_at
    AND jobqueue_jobs.id > input.id ORDER BY jobqueue_jobs.run_at,
    jobqueue_jobs.id LIMIT 1 OFFSET :in_most_but_one),
    (SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane IS NULL AND jobqueue_jobs.queue = input.queue AND jobqueue_jobs.priority = input.priority AND jobqueue_jobs.run_at > input.run_at ORDER BY jobqueue_jobs.run_at, jobqueue_jobs.id LIMIT 1 OFFSET :in_most_but_one),
    (SELECT jobqueue_jobs.id FROM jobqueue_jobs WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane IS NULL AND jobqueue_jobs.queue = input.queue AND jobqueue_jobs.priority > input.priority ORDER BY jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id LIMIT 1 OFFSET :in_most_but_one)) AS id));
