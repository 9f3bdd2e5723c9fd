"""When jobs are enqueued by themselves: cron expressions and fixed intervals."""
