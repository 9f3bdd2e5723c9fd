"""The history of workers by the minute, and its views.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    on_sqlite = op.get_context().dialect.name == "sqlite"
    instant = sa.Text() if on_sqlite else sa.DateTime(timezone=True)
    op.create_table(
        "jobqueue_history",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("minute", instant, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
            for name in ("processed", "errored", "failed", "snoozed")
        ),
        sa.Column("duration", sa.Double, nullable=False, server_default="0"),
        sa.Column("duration_p95", sa.Double),
        sa.Column("wait", sa.Double, nullable=False, server_default="0"),
        sa.Column("wait_p95", sa.Double),
        sa.Column("busy", sa.Double, nullable=False, server_default="0"),
        sa.Column("slots", sa.Double, nullable=False, server_default="0"),
    )
    op.create_index("jobqueue_history_minute", "jobqueue_history", ["minute"])
    for name, key, only, last in VIEWS:
        op.execute(VIEW.format(name=name, key=key, only=only, last=last))


# The percentile of a minute is that of the worker that was slowest in it: they cannot be added up.
VIEW = """CREATE VIEW {name} AS
SELECT minute, {key},
  CAST(sum(processed) AS bigint) AS processed,
  CAST(sum(errored) AS bigint) AS errored,
  CAST(sum(failed) AS bigint) AS failed,
  CAST(sum(snoozed) AS bigint) AS snoozed,
  sum(duration) / nullif(sum(processed), 0) AS avg_duration,
  max(duration_p95) AS p95_duration,
  sum(wait) / nullif(sum(processed), 0) AS avg_wait,
  max(wait_p95) AS p95_wait{last}
FROM jobqueue_history
WHERE {only}
GROUP BY minute, {key}"""
VIEWS = (
    (
        "jobqueue_worker_minutes",
        "worker",
        "task = ''",
        ",\n  sum(busy) / nullif(sum(slots), 0) AS utilisation",
    ),
    ("jobqueue_task_minutes", "task", "task <> ''", ""),
)
