"""Columns for headers, schedules, expiry and lanes; the tables of schedules and of the audit.

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
    ):
        op.add_column("jobqueue_jobs", column)
    op.add_column("jobqueue_attempts", sa.Column("error_signature", sa.Text))
    _create_schedules()
    _create_audit()


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
