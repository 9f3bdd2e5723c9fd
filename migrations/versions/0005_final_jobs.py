"""The index of final jobs, by a predicate that a claim does not touch.

With `state IN (…)` SQLite looked at it for every claim, because the state changes: a fifth of the
time of a drain's statements.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.drop_index("jobqueue_jobs_final", "jobqueue_jobs")
    ended = sa.text("finished_at IS NOT NULL")
    op.create_index(
        "jobqueue_jobs_final",
        "jobqueue_jobs",
        ["state", "finished_at"],
        postgresql_where=ended,
        sqlite_where=ended,
    )
