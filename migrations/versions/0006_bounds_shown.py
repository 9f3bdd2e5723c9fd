"""The view of queues shows their bounds.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """The view as of 0002, and one column more."""
    if op.get_context().dialect.name == "sqlite":
        replace = "CREATE VIEW"
        spellings = {
            "oldest_age": "max((julianday('now') - julianday(min(run_at))) * 86400.0, 0.0)",
            "no_age": "NULL",
            "no_bound": "NULL",
        }
        op.execute("DROP VIEW jobqueue_queue_stats")
    else:  # Replaced and not made anew: who may read it stays as it is.
        replace = "CREATE OR REPLACE VIEW"
        seconds = (
            "CAST(extract(epoch FROM statement_timestamp() - min(run_at)) AS double precision)"
        )
        spellings = {
            "oldest_age": f"greatest({seconds}, 0)",
            "no_age": "CAST(NULL AS double precision)",
            "no_bound": "CAST(NULL AS integer)",
        }
    op.execute(f"{replace} jobqueue_queue_stats AS{QUERY.format(**spellings).rstrip()}")


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
    0 AS succeeded, 0 AS failed, 0 AS cancelled, 0 AS paused, {no_age} AS oldest,
    {no_bound} AS bound
  FROM jobqueue_jobs WHERE state = 'scheduled' GROUP BY queue
  UNION ALL
  SELECT queue, 0, count(*), 0, 0, 0, 0, 0, {oldest_age}, {no_bound}
  FROM jobqueue_jobs WHERE state = 'available' GROUP BY queue
  UNION ALL
  SELECT queue, 0, 0, count(*), 0, 0, 0, 0, {no_age}, {no_bound}
  FROM jobqueue_jobs
  WHERE state = 'running' AND worker_id BETWEEN 1 AND 9223372036854775807 GROUP BY queue
  UNION ALL
  SELECT queue, 0, 0, 0, sum(succeeded), sum(failed), sum(cancelled), 0, {no_age}, {no_bound}
  FROM jobqueue_counters WHERE fold <= 2 GROUP BY queue
  UNION ALL
  SELECT name, 0, 0, 0, 0, 0, 0, CASE WHEN paused_at IS NULL THEN 0 ELSE 1 END, {no_age},
    max_pending
  FROM jobqueue_queues
) AS parts
GROUP BY queue
"""
