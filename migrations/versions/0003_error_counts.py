"""The counts of errors by hour, the index that finds the jobs of one error, and what tasks hide.

Revision ID: 0003
Revises: 0002
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "jobqueue_error_counts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        _instant("hour"),
        sa.Column("error_id", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("error_type", sa.Text, nullable=False),
        sa.Column("place", sa.Text),
        sa.Column("message", sa.Text),
        sa.Column("attempts", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("failed", sa.BigInteger, nullable=False, server_default="0"),
        _instant("first_at"),
        _instant("last_at"),
        sa.Column("kind", sa.SmallInteger, nullable=False, server_default="0"),
    )
    op.create_index("jobqueue_error_counts_hour", "jobqueue_error_counts", ["kind", "hour"])
    recorded = sa.text("error_signature IS NOT NULL")
    op.create_index(
        "jobqueue_attempts_error",
        "jobqueue_attempts",
        ["error_signature", "job_id"],
        postgresql_where=recorded,
        sqlite_where=recorded,
    )
    op.create_table(
        "jobqueue_redactions",
        sa.Column("task", sa.Text, primary_key=True),
        sa.Column("hidden", sa.Text, nullable=False),
    )


def _instant(name: str) -> sa.Column[Any]:
    on_sqlite = op.get_context().dialect.name == "sqlite"
    type_ = sa.Text() if on_sqlite else sa.DateTime(timezone=True)
    return sa.Column(name, type_, nullable=False)
