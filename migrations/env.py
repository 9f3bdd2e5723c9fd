"""Alembic's entry for the `alembic` command, on alembic.ini's URL; jobqueue itself needs none."""

from typing import Any

from alembic import context
from sqlalchemy import create_engine

from jobqueue.store.schema import VERSION_TABLE, metadata

url = context.config.get_main_option("sqlalchemy.url")
common: dict[str, Any] = {"target_metadata": metadata, "version_table": VERSION_TABLE}

if context.is_offline_mode():
    context.configure(url=url, literal_binds=True, **common)
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(url or "").begin() as own:
        context.configure(connection=own, **common)
        context.run_migrations()
