"""Alembic's entry: runs on the connection that jobqueue hands over, or on alembic.ini's URL."""

from typing import Any

from alembic import context
from sqlalchemy import create_engine

from jobqueue.schema import VERSION_TABLE, metadata

config = context.config
connection = config.attributes.get("connection")
common: dict[str, Any] = {"target_metadata": metadata, "version_table": VERSION_TABLE}

if context.is_offline_mode():
    context.configure(
        dialect_name=config.attributes.get("dialect"),
        url=None if config.attributes.get("dialect") else config.get_main_option("sqlalchemy.url"),
        literal_binds=True,
        output_buffer=config.attributes.get("output"),
        **common,
    )
    with context.begin_transaction():
        context.run_migrations()
elif connection is not None:  # In the caller's transaction: all of an upgrade or nothing.
    context.configure(connection=connection, **common)
    context.run_migrations()
else:
    with create_engine(config.get_main_option("sqlalchemy.url") or "").begin() as own:
        context.configure(connection=own, **common)
        context.run_migrations()
