"""Columns of the pool: deadlines of jobs, how child processes died, bounds of queues.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    on_sqlite = op.get_context().dialect.name == "sqlite"
    instant = sa.Text() if on_sqlite else sa.DateTime(timezone=True)
    op.add_column("jobqueue_jobs", sa.Column("deadline_at", instant))
    op.add_column(
        "jobqueue_jobs",
        sa.Column("own_crashes", sa.Integer, nullable=False, server_default="0"),
    )
    op.add_column("jobqueue_attempts", sa.Column("exit_signal", sa.Text))
    op.add_column("jobqueue_attempts", sa.Column("peak_memory", sa.BigInteger))
    op.add_column("jobqueue_queues", sa.Column("max_pending", sa.Integer))
    op.add_column("jobqueue_queues", sa.Column("when_full", sa.Text))
