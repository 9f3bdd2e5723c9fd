"""Columns for headers, schedules, expiry and lanes; the tables of schedules, audit and pauses.

Each column of an existing table is nullable and has no default, so that neither database rewrites
or reads the table, and workers of the version before go on.

Revision ID: 0002
Revises: 0001
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

SQLITE_NOW = "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"


def upgrade() -> None:
    for column in (
        sa.Column("headers", sa.Text),
        _instant("scheduled_for"),
        _instant("expires_at"),
        sa.Column("lane", sa.Text),
        sa.Column("lane_limit", sa.Integer),
        sa.Column("lane_weight", sa.Double),
        sa.Column("lane_strict", sa.SmallInteger),
        _instant("progress_at"),
        sa.Column("awaited_key", sa.Text),
    ):
        op.add_column("jobqueue_jobs", column)
    op.add_column("jobqueue_attempts", sa.Column("error_signature", sa.Text))
    for column in (
        sa.Column("max_running", sa.Integer),
        sa.Column("rate_count", sa.Integer),
        sa.Column("rate_period", sa.Double),
        sa.Column("rate_burst", sa.Integer),
        sa.Column("fair", sa.SmallInteger),
        sa.Column("declared", sa.Text),
    ):
        op.add_column("jobqueue_queues", column)
    _create_schedules()
    _create_audit()
    _create_pauses()
    _create_lanes()
    _replace_view()


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _instant(name: str, *, now: bool = False) -> sa.Column[Any]:
    default = sa.text(SQLITE_NOW if _on_sqlite() else "clock_timestamp()") if now else None
    type_ = sa.Text() if _on_sqlite() else sa.DateTime(timezone=True)
    return sa.Column(name, type_, nullable=not now, server_default=default)


def _create_schedules() -> None:
    op.create_table(
        "jobqueue_schedules",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("expression", sa.Text, nullable=False),
        sa.Column("tz", sa.Text),
        sa.Column("args", sa.Text, nullable=False, server_default='{"args":[],"kwargs":{}}'),
        sa.Column("options", sa.Text),
        sa.Column("catch_up", sa.Text, nullable=False),
        sa.Column("overlap", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("declared", sa.Text),
        _instant("paused_at"),
        sa.Column("paused_by", sa.Text),
        _instant("next_at"),
        _instant("nominal_at"),
        sa.Column("last_job_id", sa.BigInteger),
        _instant("orphaned_at"),
    )
    running = sa.text("paused_at IS NULL")
    op.create_index(
        "jobqueue_schedules_next",
        "jobqueue_schedules",
        ["next_at"],
        postgresql_where=running,
        sqlite_where=running,
    )


def _create_audit() -> None:
    op.create_table(
        "jobqueue_audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        _instant("at", now=True),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("verb", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False, server_default="0"),
        sqlite_autoincrement=True,
    )


def _create_pauses() -> None:
    op.create_table(
        "jobqueue_pauses",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        _instant("paused_at", now=True),
        sa.Column("paused_by", sa.Text),
    )


def _create_lanes() -> None:
    op.create_table(
        "jobqueue_lanes",
        sa.Column("kind", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        _instant("due_at"),
        sa.Column("turn", sa.Double, nullable=False, server_default="0"),
        sa.Column("plain_turn", sa.Double, nullable=False, server_default="0"),
        sa.Column("next_start", sa.Double, nullable=False, server_default="0"),
        sa.Column("parked", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("parked_until", sa.Double, nullable=False, server_default="0"),
    )
    op.drop_index("jobqueue_jobs_claim", "jobqueue_jobs")
    place = ["priority", "run_at", "id"]
    begun = (
        "lane IS NOT NULL AND fence > 0 AND (state = 'running'"
        " OR lane_strict = 1 AND (state = 'scheduled' OR state = 'available'))"
    )
    expires = (
        "expires_at IS NOT NULL AND attempt = 0 AND snoozes = 0 AND crashes = 0"
        " AND (state = 'scheduled' OR state = 'available')"
    )
    for table, name, columns, where in (
        ("jobs", "claim", ["queue", *place], "state = 'available' AND lane IS NULL"),
        ("jobs", "lane", ["queue", "lane", *place], "lane IS NOT NULL AND state = 'available'"),
        ("jobs", "lane_new", ["id"], "lane IS NOT NULL AND state = 'available' AND id > 0"),
        ("jobs", "lane_begun", ["lane"], begun),
        ("jobs", "expires", ["expires_at"], expires),
        ("jobs", "awaits", ["awaited_key"], "awaited_key IS NOT NULL AND state = 'scheduled'"),
        ("lanes", "due", ["queue", "priority", "due_at"], "parked = 0"),
        ("lanes", "turn", ["queue", "turn"], "parked = 0"),
    ):
        where_ = sa.text(where)
        op.create_index(
            f"jobqueue_{table}_{name}",
            f"jobqueue_{table}",
            columns,
            postgresql_where=where_,
            sqlite_where=where_,
            unique=name == "awaits",
        )


def _replace_view() -> None:
    """Count the available jobs in the two indexes that they are in now; add the switches."""
    if _on_sqlite():
        age = "max((julianday('now') - julianday(min(run_at))) * 86400.0, 0.0)"
        spellings = {"no_age": "NULL", "no_bound": "NULL", "at_any_time": ""}
    else:
        seconds = (
            "CAST(extract(epoch FROM statement_timestamp() - min(run_at)) AS double precision)"
        )
        age = f"greatest({seconds}, 0)"
        spellings = {
            "no_age": "CAST(NULL AS double precision)",
            "no_bound": "CAST(NULL AS integer)",
            "at_any_time": AT_ANY_TIME,
        }
    op.execute("DROP VIEW jobqueue_queue_stats")
    query = QUEUE_STATS.format(oldest_age=age, **spellings).rstrip()
    op.execute(f"CREATE VIEW jobqueue_queue_stats AS{query}")


# See 0001.
AT_ANY_TIME = """
    AND run_at >= (SELECT CAST('-infinity' AS timestamptz))
    AND run_at <= (SELECT CAST('infinity' AS timestamptz))"""

QUEUE_STATS = """
SELECT parts.queue,
  CAST(sum(scheduled) AS bigint) AS scheduled,
  CAST(sum(available) AS bigint) AS available,
  CAST(sum(running) AS bigint) AS running,
  CAST(sum(succeeded) AS bigint) AS succeeded,
  CAST(sum(failed) AS bigint) AS failed,
  CAST(sum(cancelled) AS bigint) AS cancelled,
  max(paused) = 1 AS paused,
  max(oldest) AS oldest_available_seconds,
  max(bound) AS max_pending,
  max(switches.max_running) AS max_running,
  max(switches.rate_count) AS rate_count,
  max(switches.rate_period) AS rate_period,
  max(switches.rate_burst) AS rate_burst,
  coalesce(max(switches.fair), 0) = 1 AS fair
FROM (
  SELECT queue, count(*) AS scheduled, 0 AS available, 0 AS running,
    0 AS succeeded, 0 AS failed, 0 AS cancelled, 0 AS paused, {no_age} AS oldest,
    {no_bound} AS bound
  FROM jobqueue_jobs WHERE state = 'scheduled'{at_any_time} GROUP BY queue
  UNION ALL
  SELECT queue, 0, count(*), 0, 0, 0, 0, 0, {oldest_age}, NULL
  FROM jobqueue_jobs WHERE state = 'available' AND lane IS NULL{at_any_time} GROUP BY queue
  UNION ALL
  SELECT queue, 0, count(*), 0, 0, 0, 0, 0, {oldest_age}, NULL
  FROM jobqueue_jobs WHERE state = 'available' AND lane IS NOT NULL{at_any_time} GROUP BY queue
  UNION ALL
  SELECT queue, 0, 0, count(*), 0, 0, 0, 0, NULL, NULL
  FROM jobqueue_jobs
  WHERE state = 'running' AND worker_id BETWEEN 1 AND 9223372036854775807 GROUP BY queue
  UNION ALL
  SELECT queue, 0, 0, 0, sum(succeeded), sum(failed), sum(cancelled), 0, NULL, NULL
  FROM jobqueue_counters WHERE kind <= 1 GROUP BY queue
  UNION ALL
  SELECT name, 0, 0, 0, 0, 0, 0, CASE WHEN paused_at IS NULL THEN 0 ELSE 1 END, NULL,
    max_pending
  FROM jobqueue_queues
) AS parts
LEFT JOIN jobqueue_queues AS switches ON switches.name = parts.queue
GROUP BY parts.queue
"""
