"""The tables, their indexes, and the monitoring views.

Revision ID: 0001
Revises:
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SQLITE_NOW = "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"
LIVE = "state IN ('scheduled', 'available', 'running')"
HELD_KEY = (
    "unique_key IS NOT NULL AND (unique_until = 'deleted'"
    f" OR unique_until = 'finished' AND {LIVE}"
    f" OR unique_until = 'started' AND key_released = 0 AND {LIVE})"
)
# The instants that Python can hold in every time zone that a session may have.
IN_RANGE = "{0} >= '0001-01-02 00:00:00+00' AND {0} < '9999-12-31 00:00:00+00'"
INTEGER = "typeof({0}) = 'integer' AND {0} BETWEEN {1} AND 2147483647"
STATE = "state_is_scheduled_available_running_succeeded_failed_cancelled"
CHECKS = {
    "timeout_is_more_than_0_and_at_most_316224000": "timeout > 0 AND timeout <= 316224000",
}
POSTGRES_CHECKS = {
    STATE: "state IN ('scheduled', 'available', 'running', 'succeeded', 'failed', 'cancelled')",
    "max_attempts_is_an_integer_of_at_least_1": "max_attempts >= 1",
    "run_at_is_in_the_years_1_to_9999": IN_RANGE.format("run_at"),
    "created_at_is_in_the_years_1_to_9999": IN_RANGE.format("created_at"),
}
SQLITE_CHECKS = {
    STATE: (
        "state = 'scheduled' OR state = 'available' OR state = 'running'"
        " OR state = 'succeeded' OR state = 'failed' OR state = 'cancelled'"
    ),
    "max_attempts_is_an_integer_of_at_least_1": INTEGER.format("max_attempts", 1),
    "priority_is_an_integer_of_32_bits": INTEGER.format("priority", -(2**31)),
    "run_at_is_in_utc_like_2026_01_31_23_59_59": (
        "run_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-5][0-9]*'"
        " AND datetime(run_at) IS NOT NULL"
    ),
    "run_at_is_in_the_years_1_to_9999": (
        "run_at >= '0001-01-02 00:00:00' AND run_at < '9999-12-31 00:00:00'"
    ),
    "args_is_json": "json_valid(args)",
    "tags_is_json": "tags IS NULL OR json_valid(tags)",
    "backoff_is_json": "backoff IS NULL OR json_valid(backoff)",
}


def upgrade() -> None:
    if _on_sqlite():
        # An application that reflects all tables and drops them leaves the views behind.
        for name in VIEWS:
            op.execute(f"DROP VIEW IF EXISTS {name}")
    _create_jobs()
    _create_attempts()
    _create_workers()
    _create_queues()
    _create_meta()
    _create_counters()
    _create_history()
    _create_indexes()
    _create_views()


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _instant(name: str, *, now: bool = False, nullable: bool = True) -> sa.Column[Any]:
    default = sa.text(SQLITE_NOW if _on_sqlite() else "clock_timestamp()") if now else None
    type_ = sa.Text() if _on_sqlite() else sa.DateTime(timezone=True)
    return sa.Column(name, type_, nullable=nullable and not now, server_default=default)


def _id() -> sa.Column[Any]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)


def _count(name: str, type_: type[Any] = sa.BigInteger, default: str = "0") -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=False, server_default=default)


def _text(name: str, default: str | None = None, *, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=nullable and default is None, server_default=default)


def _create_jobs() -> None:
    checks = CHECKS | (SQLITE_CHECKS if _on_sqlite() else POSTGRES_CHECKS)
    op.create_table(
        "jobqueue_jobs",
        _id(),
        _text("task", nullable=False),
        _text("queue", "default"),
        _text("state", "available"),
        _count("priority", sa.Integer),
        _text("args", '{"args":[],"kwargs":{}}'),
        _text("tags"),
        _instant("run_at", now=True),
        _count("attempt", sa.Integer),
        _count("max_attempts", sa.Integer, "10"),
        sa.Column("base_max_attempts", sa.Integer),
        _count("crashes", sa.Integer),
        _count("snoozes", sa.Integer),
        _count("fence"),
        sa.Column("worker_id", sa.BigInteger),
        _text("worker"),
        sa.Column("timeout", sa.Double),
        _text("backoff"),
        _text("unique_key"),
        _text("unique_until"),
        sa.Column("progress", sa.Double),
        _text("progress_message"),
        _instant("cancel_requested_at"),
        _text("reason"),
        _text("result"),
        _instant("created_at", now=True),
        _instant("started_at"),
        _instant("finished_at"),
        _count("key_released", sa.SmallInteger),
        _instant("deadline_at"),
        _count("child_crashes", sa.Integer),
        *(sa.CheckConstraint(check, name=name) for name, check in checks.items()),
        sqlite_autoincrement=True,
    )


def _create_attempts() -> None:
    op.create_table(
        "jobqueue_attempts",
        sa.Column("job_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("fence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        _text("worker"),
        _instant("started_at"),
        _instant("finished_at", nullable=False),
        _text("outcome", nullable=False),
        _text("error_type"),
        _text("error_message"),
        _text("traceback"),
        _text("exit_signal"),
        sa.Column("peak_memory", sa.BigInteger),
    )


def _create_workers() -> None:
    op.create_table(
        "jobqueue_workers",
        _id(),
        _text("name", nullable=False),
        _text("host", nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        _text("boot_id"),
        _text("pid_namespace"),
        sa.Column("process_started", sa.Double),
        _text("wakeup_address"),
        _text("queues"),
        _text("tasks", nullable=False),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("lease", sa.Double, nullable=False),
        _count("heartbeats"),
        _count("running", sa.Integer),
        _count("processed"),
        _count("errored"),
        _instant("started_at", now=True),
        _instant("heartbeat_at", now=True),
        sqlite_autoincrement=True,
    )


def _create_queues() -> None:
    op.create_table(
        "jobqueue_queues",
        sa.Column("name", sa.Text, primary_key=True),
        _instant("paused_at"),
        sa.Column("max_pending", sa.Integer),
        _text("when_full"),
    )


def _create_meta() -> None:
    meta = op.create_table(
        "jobqueue_meta",
        sa.Column("key", sa.Text, primary_key=True),
        _text("value", nullable=False),
    )
    # Drawn by the database: printed SQL, run in two databases, must not give both the same id.
    drawn = "hex(randomblob(16))" if _on_sqlite() else "replace(gen_random_uuid()::text, '-', '')"
    op.execute(meta.insert().values(key="instance", value=sa.text(f"lower({drawn})")))


def _create_counters() -> None:
    op.create_table(
        "jobqueue_counters",
        _id(),
        _instant("minute", nullable=False),
        _text("queue", nullable=False),
        _text("task", nullable=False),
        _count("succeeded"),
        _count("failed"),
        _count("cancelled"),
        _count("errored_attempts"),
        _count("runs"),
        _count("duration", sa.Double),
        _count("duration_max", sa.Double),
        _count("wait", sa.Double),
        _count("wait_max", sa.Double),
        _count("kind", sa.SmallInteger),
    )


def _create_history() -> None:
    op.create_table(
        "jobqueue_history",
        _id(),
        _instant("minute", nullable=False),
        _text("worker", nullable=False),
        _text("task", nullable=False),
        _count("processed"),
        _count("errored"),
        _count("failed"),
        _count("snoozed"),
        _count("duration", sa.Double),
        sa.Column("duration_p95", sa.Double),
        _count("wait", sa.Double),
        sa.Column("wait_p95", sa.Double),
        _count("busy", sa.Double),
        _count("slots", sa.Double),
    )


def _create_indexes() -> None:
    partial = {
        "claim": (["queue", "priority", "run_at", "id"], "state = 'available'"),
        "due": (["run_at", "queue"], "state = 'scheduled'"),
        "held": (["worker_id"], "worker_id IS NOT NULL"),
        # With `state IN (…)` SQLite would look at this index for every claim, since that changes
        # the state: a fifth of the time of a drain's statements.
        "final": (["state", "finished_at"], "finished_at IS NOT NULL"),
        "unique": (["unique_key"], HELD_KEY),
    }
    for name, (columns, predicate) in partial.items():
        where = sa.text(predicate)
        op.create_index(
            f"jobqueue_jobs_{name}",
            "jobqueue_jobs",
            columns,
            unique=name == "unique",
            postgresql_where=where,
            sqlite_where=where,
        )
    op.create_index("jobqueue_attempts_finished", "jobqueue_attempts", ["finished_at"])
    op.create_index("jobqueue_workers_here", "jobqueue_workers", ["boot_id", "pid_namespace", "id"])
    op.create_index("jobqueue_counters_minute", "jobqueue_counters", ["kind", "minute"])
    op.create_index("jobqueue_history_minute", "jobqueue_history", ["minute"])


def _create_views() -> None:
    """Each view is one text for both databases, except for the spellings here."""
    if _on_sqlite():
        age = "max((julianday('now') - julianday({})) * 86400.0, 0.0)"
        spellings = {"no_age": "NULL", "no_bound": "NULL", "at_any_time": ""}
    else:  # statement_timestamp() is stable: the planner may push a WHERE into the view past it.
        seconds = "CAST(extract(epoch FROM statement_timestamp() - {}) AS double precision)"
        age = f"greatest({seconds}, 0)"
        spellings = {
            "no_age": "CAST(NULL AS double precision)",
            "no_bound": "CAST(NULL AS integer)",
            "at_any_time": AT_ANY_TIME,
        }
    spellings["oldest_age"] = age.format("min(run_at)")
    spellings["heartbeat_age"] = age.format("heartbeat_at")
    for name, query in VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS{query.format(**spellings).rstrip()}")


# A condition that every instant meets. After an ANALYZE without a VACUUM, PostgreSQL's planner may
# estimate that the index of waiting jobs costs as much as the whole table, and read that: half a
# second with ten million jobs. It takes bounds that it does not know for one row in two hundred.
AT_ANY_TIME = """
    AND run_at >= (SELECT CAST('-infinity' AS timestamptz))
    AND run_at <= (SELECT CAST('infinity' AS timestamptz))"""

# The percentile of a minute is that of the worker that was slowest in it: they cannot be added up.
HISTORY = """
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
GROUP BY minute, {key}
"""

# Each live state is counted in its own partial index, of which all columns but that of the few
# running jobs are read. Final jobs are not read at all: their numbers are in the counters.
# Of the counters, kind 0 is a batch's, 1 a total, 2 a minute that the total contains.
# Running jobs are selected by a range that every worker's id is in: until the table has been
# analyzed, PostgreSQL estimates that IS NOT NULL is true of nearly all rows, and reads the table.
VIEWS = {
    "jobqueue_queue_stats": """
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
  FROM jobqueue_jobs WHERE state = 'scheduled'{at_any_time} GROUP BY queue
  UNION ALL
  SELECT queue, 0, count(*), 0, 0, 0, 0, 0, {oldest_age}, NULL
  FROM jobqueue_jobs WHERE state = 'available'{at_any_time} GROUP BY queue
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
GROUP BY queue
""",
    "jobqueue_task_stats": """
SELECT task,
  CAST(sum(succeeded) AS bigint) AS succeeded,
  CAST(sum(failed) AS bigint) AS failed,
  CAST(sum(cancelled) AS bigint) AS cancelled,
  CAST(sum(errored_attempts) AS bigint) AS errored_attempts,
  sum(duration) / nullif(sum(runs), 0) AS avg_duration,
  max(CASE WHEN runs > 0 THEN duration_max END) AS max_duration,
  sum(wait) / nullif(sum(runs), 0) AS avg_wait,
  max(CASE WHEN runs > 0 THEN wait_max END) AS max_wait
FROM jobqueue_counters
WHERE kind <= 1
GROUP BY task
""",
    "jobqueue_worker_stats": """
SELECT name AS worker, host, pid, queues, concurrency, running, processed, errored,
  {heartbeat_age} AS heartbeat_age_seconds,
  started_at, lease
FROM jobqueue_workers
""",
    "jobqueue_worker_minutes": HISTORY.format(
        key="worker",
        only="task = ''",
        last=",\n  sum(busy) / nullif(sum(slots), 0) AS utilisation",
    ),
    "jobqueue_task_minutes": HISTORY.format(key="task", only="task <> ''", last=""),
    "jobqueue_throughput": """
SELECT minute, queue, task,
  CAST(sum(succeeded) AS bigint) AS succeeded,
  CAST(sum(failed) AS bigint) AS failed,
  CAST(sum(cancelled) AS bigint) AS cancelled,
  CAST(sum(errored_attempts) AS bigint) AS errored_attempts,
  sum(duration) / nullif(sum(runs), 0) AS avg_duration
FROM jobqueue_counters
WHERE kind IN (0, 2)
GROUP BY minute, queue, task
""",
}
