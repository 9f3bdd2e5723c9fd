SELECT EXISTS (SELECT * FROM jobqueue_jobs WHERE jobqueue_jobs.worker_id BETWEEN 1 AND 9223372036854775807
    AND NOT (EXISTS (SELECT * FROM jobqueue_workers WHERE jobqueue_workers.id = jobqueue_jobs.worker_id))) AS anon_1;
