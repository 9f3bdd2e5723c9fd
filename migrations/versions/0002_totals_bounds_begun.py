"""Totals apart from minutes and an index for reading fast; bounds of instants; what has begun.

Revision ID: 0002
Revises: 0001

It reads every job once or twice, and keeps others out for that time: about 2 s for ten million.
"""

import sqlalchemy as sa
from alembic import op

from jobqueue.errors import SchemaOutdated

revision = "0002"
down_revision = "0001"

LIVE = "state IN ('scheduled', 'available', 'running')"

# What Python can hold in every time zone that a session may have.
IN_RANGE = "{0} >= '0001-01-02 00:00:00+00' AND {0} < '9999-12-31 00:00:00+00'"


def upgrade() -> None:
    # In the order in which others take their locks: views before tables, jobs before attempts.
    _replace_views()
    if not _on_sqlite():
        op.execute("LOCK TABLE jobqueue_jobs, jobqueue_attempts IN ACCESS EXCLUSIVE MODE")
        _bound_instants()
    op.create_index("jobqueue_attempts_finished", "jobqueue_attempts", ["finished_at"])
    _hold_keys_until_begun()


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _bound_instants() -> None:
    """PostgreSQL holds instants that Python does not, `infinity` above all, and a claim reads them.

    SQLite's text is read whatever it says, and a CHECK would need the whole table to be rebuilt.
    """
    bounds = {name: IN_RANGE.format(name) for name in ("run_at", "created_at")}
    if not op.get_context().as_sql:
        for name, bound in bounds.items():
            _refuse_beyond(name, bound)
    added = ", ".join(
        f"ADD CONSTRAINT jobqueue_jobs_{name}_in_range CHECK ({bound})"
        for name, bound in bounds.items()
    )
    op.execute(f"ALTER TABLE jobqueue_jobs {added}")  # Both in one reading of the table.


def _refuse_beyond(name: str, bound: str) -> None:
    jobs = sa.table("jobqueue_jobs", sa.column("id"), sa.column(name))
    query = sa.select(jobs.c.id, sa.cast(jobs.c[name], sa.Text))
    query = query.where(sa.text(f"NOT ({bound})")).limit(1)
    row = op.get_bind().execute(query).one_or_none()
    if row is not None:
        id_, instant = row
        remedy = f"UPDATE jobqueue_jobs SET {name} = now() WHERE id = {id_}"  # noqa: S608
        raise SchemaOutdated(
            f"the schema cannot be upgraded, and nothing was changed: {name} of job {id_} is"
            f" {instant}, but has to lie in the years 1 to 9999; first run, for example, {remedy}"
        )


def _hold_keys_until_begun() -> None:
    """Key that is held until the start: until the job has begun, not until it is claimed first."""
    begun = sa.Column("begun", sa.SmallInteger, nullable=False, server_default="0")
    op.add_column("jobqueue_jobs", begun)
    # What was claimed has given up its key by the rule of schema 0001: another may hold it now.
    op.execute("UPDATE jobqueue_jobs SET begun = 1 WHERE unique_until = 'started' AND fence > 0")
    where = sa.text(
        "unique_key IS NOT NULL AND (unique_until = 'deleted'"
        f" OR unique_until = 'finished' AND {LIVE}"
        f" OR unique_until = 'started' AND begun = 0 AND {LIVE})"
    )
    op.drop_index("jobqueue_jobs_unique", "jobqueue_jobs")
    op.create_index(
        "jobqueue_jobs_unique",
        "jobqueue_jobs",
        ["unique_key"],
        unique=True,
        postgresql_where=where,
        sqlite_where=where,
    )


def _replace_views() -> None:
    """Each view is one text for both databases, but for the few spellings named here."""
    if _on_sqlite():
        replace = "CREATE VIEW"
        spellings = {
            "oldest_age": "max((julianday('now') - julianday(min(run_at))) * 86400.0, 0.0)",
            "no_age": "NULL",
        }
    else:  # Replaced and not made anew: who may read them stays as it is.
        replace = "CREATE OR REPLACE VIEW"
        seconds = (
            "CAST(extract(epoch FROM statement_timestamp() - min(run_at)) AS double precision)"
        )
        spellings = {
            "oldest_age": f"greatest({seconds}, 0)",
            "no_age": "CAST(NULL AS double precision)",
        }
    for name, query in VIEWS.items():
        if _on_sqlite():
            op.execute(f"DROP VIEW {name}")
        op.execute(f"{replace} {name} AS{query.format(**spellings).rstrip()}")


# Each live state is counted in its own partial index, of which all columns but that of the few
# running jobs are read; final jobs are not read at all: what became of them is in the counters.
# Those jobs are named by a range that every worker's id is in: until the table has been analyzed,
# PostgreSQL believes that IS NOT NULL is true of nearly all rows, and reads the whole table.
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
  max(oldest) AS oldest_available_seconds
FROM (
  SELECT queue, count(*) AS scheduled, 0 AS available, 0 AS running,
    0 AS succeeded, 0 AS failed, 0 AS cancelled, 0 AS paused, {no_age} AS oldest
  FROM jobqueue_jobs WHERE state = 'scheduled' GROUP BY queue
  UNION ALL
  SELECT queue, 0, count(*), 0, 0, 0, 0, 0, {oldest_age}
  FROM jobqueue_jobs WHERE state = 'available' GROUP BY queue
  UNION ALL
  SELECT queue, 0, 0, count(*), 0, 0, 0, 0, {no_age}
  FROM jobqueue_jobs
  WHERE state = 'running' AND worker_id BETWEEN 1 AND 9223372036854775807 GROUP BY queue
  UNION ALL
  SELECT queue, 0, 0, 0, sum(succeeded), sum(failed), sum(cancelled), 0, {no_age}
  FROM jobqueue_counters WHERE fold <= 2 GROUP BY queue
  UNION ALL
  SELECT name, 0, 0, 0, 0, 0, 0, CASE WHEN paused_at IS NULL THEN 0 ELSE 1 END, {no_age}
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
WHERE fold <= 2
GROUP BY task
""",
    "jobqueue_throughput": """
SELECT minute, queue, task,
  CAST(sum(succeeded) AS bigint) AS succeeded,
  CAST(sum(failed) AS bigint) AS failed,
  CAST(sum(cancelled) AS bigint) AS cancelled,
  CAST(sum(errored_attempts) AS bigint) AS errored_attempts,
  sum(duration) / nullif(sum(runs), 0) AS avg_duration
FROM jobqueue_counters
WHERE fold IN (0, 1, 3)
GROUP BY minute, queue, task
""",
}
