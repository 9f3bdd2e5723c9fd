"""Workers watch a bounded number of others: neighbours by a random number, and of their own host.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Workers that are there keep the number 0: they are watched like others."""
    op.add_column(
        "jobqueue_workers", sa.Column("place", sa.Integer, nullable=False, server_default="0")
    )
    op.create_index("jobqueue_workers_ring", "jobqueue_workers", ["place", "id"])
    op.create_index("jobqueue_workers_here", "jobqueue_workers", ["boot_id", "pid_namespace", "id"])
