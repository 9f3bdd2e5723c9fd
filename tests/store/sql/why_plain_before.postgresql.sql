SELECT count(*) AS count_1
FROM (
    SELECT jobqueue_jobs.id AS id
    FROM jobqueue_jobs
    WHERE jobqueue_jobs.state = 'available' AND jobqueue_jobs.lane IS NULL
        AND jobqueue_jobs.queue = :in_queue::VARCHAR
        AND (jobqueue_jobs.priority, jobqueue_jobs.run_at,
            jobqueue_jobs.id) < ((SELECT mine.priority FROM jobqueue_jobs AS mine WHERE mine.id = :in_job::BIGINT),
            (SELECT mine.run_at FROM jobqueue_jobs AS mine WHERE mine.id = :in_job::BIGINT),
            (SELECT mine.id FROM jobqueue_jobs AS mine WHERE mine.id = :in_job::BIGINT))
    ORDER BY jobqueue_jobs.priority, jobqueue_jobs.run_at, jobqueue_jobs.id
    LIMIT 10001
) AS anon_1;
