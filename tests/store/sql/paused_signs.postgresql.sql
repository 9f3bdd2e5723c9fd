SELECT jobqueue_pauses.kind, jobqueue_pauses.name,
    (SELECT max(jobqueue_audit.id) AS max_1 FROM jobqueue_audit) AS anon_1,
    (SELECT count(*) AS count_1 FROM jobqueue_workers) AS anon_2,
    (SELECT max(jobqueue_workers.started_at) AS max_2 FROM jobqueue_workers) AS anon_3
FROM jobqueue_pauses;
