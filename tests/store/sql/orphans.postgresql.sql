SELECT EXISTS (SELECT * FROM jobqueue_jobs WHERE jobqueue_jobs.worker_id IS NOT NULL
    AND NOT (EXISTS (SELECT * FROM jobqueue_workers WHERE jobqueue_workers.id = jobqueue_jobs.worker_id))) AS anon_1;
