SELECT jobqueue_meta.value
FROM jobqueue_meta
WHERE jobqueue_meta."key" = 'instance';
