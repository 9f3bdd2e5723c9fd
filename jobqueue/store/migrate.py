"""Migrations of the schema: upgrade, compare, print. Alembic is imported only where needed."""

import io
import random
import threading
import time
from contextlib import nullcontext
from importlib import resources
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, func, inspect, select, table, text
from sqlalchemy import column as sql_column
from sqlalchemy.exc import DBAPIError

from jobqueue.errors import SchemaNewer, SchemaOutdated
from jobqueue.loggers import quiet
from jobqueue.store.dialects.base import Backend
from jobqueue.store.schema import PREFIX, REVISION, VERSION_TABLE, jobs, metadata
from jobqueue.store.urls import backend_of, parse

# An arbitrary key of an advisory lock, which an upgrade holds until its transaction ends.
_UPGRADE_LOCK = 0x6A6F_6271

LOCK_WAIT = 60.0
"""Seconds for which an upgrade tries to get the locks of the tables."""
_NOT_NOW = ("55P03", "40P01")  # lock_timeout, and a deadlock

_BLOCKERS = text(
    "SELECT pid, usename, application_name, state,"
    " CAST(extract(epoch FROM clock_timestamp() - xact_start) AS integer) AS seconds"
    " FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND pid IN (SELECT locks.pid"
    " FROM pg_locks AS locks JOIN pg_class ON pg_class.oid = locks.relation"
    " WHERE locks.granted AND locks.database = (SELECT oid FROM pg_database"
    " WHERE datname = current_database()) AND starts_with(relname, :prefix))"
    " ORDER BY xact_start LIMIT 1"
)


def folder() -> Path:
    """Return the folder of the migrations: in the installed package, or beside it in a checkout."""
    packed = Path(str(resources.files("jobqueue"))) / "migrations"
    return packed if packed.is_dir() else packed.parent.parent / "migrations"


def upgrade(url: str | URL) -> tuple[str | None, str]:
    """Upgrade the schema to this version in one transaction; return the revisions (before, after).

    Many processes may call it at once. On a server it waits for the tables half a second at a time,
    because claims queue up behind a lock that it waits for, and for `LOCK_WAIT` in all. Raises
    SchemaOutdated, with what blocks it, after that; SchemaNewer if a newer jobqueue has upgraded
    the database. Both have changed nothing.
    """
    url = parse(url)
    backend = backend_of(url)
    engine = backend.engine(url, 1, makes=True)
    until = time.monotonic() + LOCK_WAIT
    try:
        while True:
            try:
                return _upgrade_at_once(backend, engine)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _NOT_NOW:
                    raise
                if time.monotonic() >= until:
                    raise SchemaOutdated(_blocked(backend, engine)) from error
            _pause(random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret.
    finally:
        engine.dispose()


def _upgrade_at_once(backend: Backend, engine: Engine) -> tuple[str | None, str]:
    """Upgrade in one transaction, which fails if a table is locked for longer than a moment."""
    with backend.writing(engine) as connection:
        if not backend.single_writer:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            backend.limit_lock_wait(connection)  # Not for another upgrade: that one ends.
        before = found(connection)
        if before != REVISION:
            refuse_newer(before)
            upgrade_on(connection)
        return before, REVISION


def _blocked(backend: Backend, engine: Engine) -> str:
    """Say which transaction holds the tables, and what to do about it."""
    with backend.reading(engine) as connection:
        row = connection.execute(_BLOCKERS, {"prefix": PREFIX}).first()
    holder = "other transactions hold its tables"
    remedy = "stop what uses it"
    if row is not None:
        name = f" ({row.application_name})" if row.application_name else ""
        holder = f"process {row.pid} of user {row.usename}{name} holds its tables"
        if row.seconds is not None:  # Shown of one's own, or to pg_read_all_stats.
            holder += f", {row.state}, in a transaction of {row.seconds:,} s"
        remedy = f"end that, by hand or with SELECT pg_terminate_backend({row.pid})"
    return (
        f"the schema could not be upgraded within {LOCK_WAIT:g} s, and nothing was changed: "
        f"{holder}; {remedy}, and run jobqueue db upgrade again"
    )


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def upgrade_on(connection: Connection) -> None:
    """Create the schema in an open transaction, without ending it."""
    _run(connection=connection)


def found(connection: Connection) -> str | None:
    """Return the schema's revision in the database, or None.

    Raises SchemaOutdated if the tables were dropped and the one with the revision was not.
    """
    versioned, has_jobs = _are_there(connection, VERSION_TABLE, jobs.name)
    if not versioned:
        return None
    version = table(VERSION_TABLE, sql_column("version_num"))
    revision: str | None = connection.execute(select(version.c.version_num)).scalar()
    if revision is not None and not has_jobs:
        raise SchemaOutdated(
            f"the database has schema {revision} by its table {VERSION_TABLE}, but not the table "
            f"{jobs.name}: use another database, or drop {VERSION_TABLE} and what else is left "
            "of the jobqueue_ tables and views in this one"
        )
    return revision


def _are_there(connection: Connection, *names: str) -> list[bool]:
    """Return which of our tables are there. Each process asks it first: on Postgres at once."""
    if connection.dialect.name == "postgresql":
        there = select(*(func.to_regclass(name).is_not(None) for name in names))
        return list(connection.execute(there).one())
    inspector = inspect(connection)
    return [inspector.has_table(name) for name in names]


def refuse_newer(revision: str | None) -> None:
    """Raise SchemaNewer if a newer jobqueue has made this revision."""
    if revision is not None and revision > REVISION:
        raise SchemaNewer(
            f"the database has schema {revision}, this jobqueue only knows {REVISION}: "
            "upgrade jobqueue; nothing was changed"
        )


def ddl(dialect: str) -> str:
    """The whole schema as SQL text; needs no connection. `dialect` is sqlite or postgresql."""
    output = io.StringIO()
    _run(
        dialect_name=dialect, opts={"as_sql": True, "output_buffer": output, "literal_binds": True}
    )
    return output.getvalue()


def differences(url: str | URL) -> list[str]:
    """Return the differences between the database and this version's tables, one line each."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    url = parse(url)
    engine = backend_of(url).engine(url, 1)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection,
                opts={
                    "version_table": VERSION_TABLE,
                    "include_object": lambda _object, name, type_, *_: (
                        type_ != "table" or str(name).startswith(PREFIX)
                    ),
                    "compare_server_default": False,
                },
            )
            return [str(difference) for difference in compare_metadata(context, metadata)]
    finally:
        engine.dispose()


def _run(*, opts: dict[str, Any] | None = None, **target: Any) -> None:
    """Run all missing migrations with alembic, without its process-wide `op` and `context`.

    Those proxies may be in use by a migration of the application, whose script enqueues a job, or
    by one in another thread.
    """
    with quiet("alembic.runtime.plugins", "alembic.runtime.migration"):  # a dozen lines each time
        _run_migrations(opts or {}, target)


def _run_migrations(opts: dict[str, Any], target: dict[str, Any]) -> None:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(folder()))

    def missing(heads: Any, _context: MigrationContext) -> Any:
        return scripts._upgrade_revs("head", heads)  # noqa: SLF001 - as alembic's cookbook does.

    context = MigrationContext.configure(
        **target, opts={"version_table": VERSION_TABLE, "fn": missing, **opts}
    )
    for script in scripts.walk_revisions():  # Modules are loaded for this ScriptDirectory alone.
        vars(script.module)["op"] = Operations(context)
    with context.begin_transaction() if context.as_sql else nullcontext():
        context.run_migrations()
