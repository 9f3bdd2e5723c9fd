"""Workers watch a bounded number of others, among them some of their own host.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """The others are found by the primary key, which is random from now on."""
    op.create_index("jobqueue_workers_here", "jobqueue_workers", ["boot_id", "pid_namespace", "id"])
