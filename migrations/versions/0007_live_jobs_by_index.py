"""The view of queues counts waiting jobs in their indexes, whatever PostgreSQL's statistics say.

After an ANALYZE without a VACUUM the planner may take such an index for as dear as the whole table,
and read that: half a second with ten million jobs. Bounds that it does not know beforehand are
taken for one two-hundredth of the rows.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """The view as of 0006, with bounds that every instant is within; SQLite needs none."""
    if op.get_context().dialect.name == "sqlite":
        return
    op.execute(f"CREATE OR REPLACE VIEW jobqueue_queue_stats AS{QUERY.rstrip()}")


QUERY = """
SELECT queue,
  CAST(sum(scheduled) AS bigint) AS scheduled,
  CAST(sum(available) AS bigint) AS available,
  CAST(sum(running) AS bigint) AS running,
  CAST(sum(succeeded) AS bigint) AS succeeded,
  CAST(sum(failed) AS bigint) AS failed,
  CAST(sum(cancelled) AS bigint) AS cancelled,
  max(paused) = 1 AS paused,
  max(oldest) AS oldest_available_seconds,
  max(bound) AS max_pending
FROM (
  SELECT queue, count(*) AS scheduled, 0 AS available, 0 AS running,
    0 AS succeeded, 0 AS failed, 0 AS cancelled, 0 AS paused,
    CAST(NULL AS double precision) AS oldest, CAST(NULL AS integer) AS bound
  FROM jobqueue_jobs
  WHERE state = 'scheduled' AND run_at >= (SELECT CAST('-infinity' AS timestamptz))
    AND run_at <= (SELECT CAST('infinity' AS timestamptz))
  GROUP BY queue
  UNION ALL
  SELECT queue, 0, count(*), 0, 0, 0, 0, 0, greatest(
      CAST(extract(epoch FROM statement_timestamp() - min(run_at)) AS double precision), 0), NULL
  FROM jobqueue_jobs
  WHERE state = 'available' AND run_at >= (SELECT CAST('-infinity' AS timestamptz))
    AND run_at <= (SELECT CAST('infinity' AS timestamptz))
  GROUP BY queue
  UNION ALL
  SELECT queue, 0, 0, count(*), 0, 0, 0, 0, NULL, NULL
  FROM jobqueue_jobs
  WHERE state = 'running' AND worker_id BETWEEN 1 AND 9223372036854775807 GROUP BY queue
  UNION ALL
  SELECT queue, 0, 0, 0, sum(succeeded), sum(failed), sum(cancelled), 0, NULL, NULL
  FROM jobqueue_counters WHERE fold <= 2 GROUP BY queue
  UNION ALL
  SELECT name, 0, 0, 0, 0, 0, 0, CASE WHEN paused_at IS NULL THEN 0 ELSE 1 END, NULL,
    max_pending
  FROM jobqueue_queues
) AS parts
GROUP BY queue
"""
