SELECT counts.lane, counts.running, counts.places, counts.next_id,
    (SELECT jobqueue_jobs.lane_limit FROM jobqueue_jobs WHERE jobqueue_jobs.id = counts.next_id) AS next_limit
FROM (
    SELECT jobqueue_jobs.lane AS lane,
        sum(CASE WHEN (jobqueue_jobs.state = 'running') THEN 1 ELSE 0 END) AS running, count(*) AS places,
        min(CASE
            WHEN (jobqueue_jobs.state = 'available' AND jobqueue_jobs.queue = :in_queue::VARCHAR AND (NOT (EXISTS (SELECT 1 FROM jobqueue_pauses))
                OR NOT (EXISTS (SELECT 1 FROM jobqueue_pauses WHERE jobqueue_pauses.kind = 'task' AND jobqueue_pauses.name = jobqueue_jobs.task OR jobqueue_pauses.kind = 'tag' AND replace(jobqueue_jobs.tags,
                    '"' || jobqueue_pauses.name || '"',
                    '') != jobqueue_jobs.tags)))) THEN jobqueue_jobs.id END) AS next_id
    FROM jobqueue_jobs
    WHERE lane IS NOT NULL AND fence > 0
        AND (state = 'running' OR lane_strict = 1 AND (state = 'scheduled' OR state = 'available'))
        AND jobqueue_jobs.lane = ANY (array((SELECT anon_1.name FROM unnest((SELECT CAST(:in_name::VARCHAR AS TEXT[]) AS anon_2)) WITH ORDINALITY AS anon_1(name, place)))) GROUP BY jobqueue_jobs.lane
) AS counts;
