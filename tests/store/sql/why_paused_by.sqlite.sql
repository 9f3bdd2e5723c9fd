SELECT jobqueue_audit.actor
FROM jobqueue_audit
WHERE jobqueue_audit.id > (SELECT max(jobqueue_audit.id) AS max_1 FROM jobqueue_audit) - 1000
    AND jobqueue_audit.verb = 'pause' AND jobqueue_audit.target = :in_target
    AND jobqueue_audit.at >= :in_paused_at
ORDER BY jobqueue_audit.id DESC
LIMIT 1 OFFSET 0;
