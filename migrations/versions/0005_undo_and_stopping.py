"""What an operator's action replaced, so that it can be undone; and which workers are stopping.

Both columns are nullable and have no default, so that neither database rewrites a table, and
workers of the version before go on. On PostgreSQL the view keeps its grants and what depends on it,
since its column is only added at the end.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    on_sqlite = op.get_context().dialect.name == "sqlite"
    op.add_column("jobqueue_audit", sa.Column("before", sa.Text))
    instant = sa.Text() if on_sqlite else sa.DateTime(timezone=True)
    op.add_column("jobqueue_workers", sa.Column("stopping_at", instant))
    replaces = "OR REPLACE "
    if on_sqlite:
        op.execute("DROP VIEW jobqueue_worker_stats")
        age, replaces = SQLITE_AGE, ""
    else:
        age = POSTGRES_AGE
    query = WORKER_STATS.format(heartbeat_age=age).rstrip()
    op.execute(f"CREATE {replaces}VIEW jobqueue_worker_stats AS{query}")


SQLITE_AGE = "max((julianday('now') - julianday(heartbeat_at)) * 86400.0, 0.0)"
POSTGRES_AGE = (
    "greatest(CAST(extract(epoch FROM statement_timestamp() - heartbeat_at)"
    " AS double precision), 0)"
)
WORKER_STATS = """
SELECT name AS worker, host, pid, queues, concurrency, running, processed, errored,
  {heartbeat_age} AS heartbeat_age_seconds,
  started_at, lease, stopping_at
FROM jobqueue_workers
"""
