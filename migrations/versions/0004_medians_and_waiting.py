"""Medians of each minute, by queue too, and how many jobs waited in it.

Each column is nullable and has no default, so that neither database rewrites the table, and workers
of the version before go on: their rows have no medians. On PostgreSQL the views keep their grants
and what depends on them, since columns are only added at their end.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for column in (
        sa.Column("queue", sa.Text),
        sa.Column("duration_p50", sa.Double),
        sa.Column("wait_p50", sa.Double),
        sa.Column("waiting", sa.BigInteger),
    ):
        op.add_column("jobqueue_history", column)
    counted = sa.text("waiting IS NOT NULL")
    op.create_index(
        "jobqueue_history_waiting",
        "jobqueue_history",
        ["minute", "waiting"],
        postgresql_where=counted,
        sqlite_where=counted,
    )
    replaces = op.get_context().dialect.name != "sqlite"
    for name, query in VIEWS.items():
        if not replaces:
            op.execute(f"DROP VIEW {name}")
        op.execute(f"CREATE {'OR REPLACE ' if replaces else ''}VIEW {name} AS{query.rstrip()}")


# Percentiles cannot be added up. That of 95 % is the largest, which is a bound. Of medians the
# largest would be far from what is usual, so it is their median, each counted once for each of its
# attempts: at least a quarter of all attempts did not exceed it, and a quarter were not below it.
#
# Windows alone, and no GROUP BY: into a SELECT with windows below one with GROUP BY, SQLite does
# not push `WHERE minute > …`, and would read all minutes for a few.
HISTORY = """
SELECT minute, {key}, processed, errored, failed, snoozed, avg_duration, p95_duration, avg_wait,
  p95_wait, {last}
FROM (
  SELECT minute, {key},
    CAST(sum(processed) OVER same AS bigint) AS processed,
    CAST(sum(errored) OVER same AS bigint) AS errored,
    CAST(sum(failed) OVER same AS bigint) AS failed,
    CAST(sum(snoozed) OVER same AS bigint) AS snoozed,
    sum(duration) OVER same / nullif(sum(processed) OVER same, 0) AS avg_duration,
    max(duration_p95) OVER same AS p95_duration,
    sum(wait) OVER same / nullif(sum(processed) OVER same, 0) AS avg_wait,
    max(wait_p95) OVER same AS p95_wait,
    sum(busy) OVER same / nullif(sum(slots) OVER same, 0) AS utilisation,
    min(CASE WHEN 2 * up_to_duration >= measured THEN duration_p50 END) OVER same AS p50_duration,
    min(CASE WHEN 2 * up_to_wait >= measured THEN wait_p50 END) OVER same AS p50_wait,
    max(waiting) OVER same AS waiting,
    row_number() OVER same AS place
  FROM (
    SELECT jobqueue_history.*,
      sum(CASE WHEN duration_p50 IS NOT NULL THEN processed END)
        OVER (PARTITION BY minute, {key}) AS measured,
      sum(CASE WHEN duration_p50 IS NOT NULL THEN processed END)
        OVER (PARTITION BY minute, {key} ORDER BY duration_p50) AS up_to_duration,
      sum(CASE WHEN wait_p50 IS NOT NULL THEN processed END)
        OVER (PARTITION BY minute, {key} ORDER BY wait_p50) AS up_to_wait
    FROM jobqueue_history
    WHERE {only}
  ) AS figures
  WINDOW same AS (PARTITION BY minute, {key})
) AS merged
WHERE place = 1
"""

VIEWS = {
    "jobqueue_worker_minutes": HISTORY.format(
        key="worker", only="task = ''", last="utilisation, p50_duration, p50_wait, waiting"
    ),
    "jobqueue_task_minutes": HISTORY.format(
        key="task", only="task <> ''", last="p50_duration, p50_wait"
    ),
}
