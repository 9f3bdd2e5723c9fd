"""The history of the schema: upgrading, comparing and printing it, and sharing a database with others."""

import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    inspect,
    make_url,
    text,
)

from jobqueue import JobQueue
from jobqueue.alembic import include_object
from jobqueue.errors import SchemaNewer, SchemaOutdated
from jobqueue.loggers import quiet
from jobqueue.store.schema import PREFIX, REVISION, VERSION_TABLE, metadata
from jobqueue.store import migrate
from jobqueue.store.database import Store
from jobqueue.store.urls import backend_of, parse
from tests.process_factory import popen

VIEWS = {
    f"{PREFIX}{name}"
    for name in (
        "queue_stats",
        "task_stats",
        "worker_stats",
        "throughput",
        "worker_minutes",
        "task_minutes",
    )
}


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A write transaction in a database that may have no schema."""
    backend = backend_of(parse(url))
    engine = backend.engine(parse(url), 1, makes=True)
    try:
        with backend.writing(engine) as connection:
            yield connection
    finally:
        engine.dispose()


def execute(url: str, *statements: str) -> None:
    with connected(url) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def scalar(url: str, query: str) -> Any:
    with connected(url) as connection:
        return connection.execute(text(query)).scalar_one()


def names(url: str) -> set[str]:
    """Every table and view in the database."""
    with connected(url) as connection:
        inspector = inspect(connection)
        return {*inspector.get_table_names(), *inspector.get_view_names()}


def definitions(url: str) -> dict[str, Any]:
    """Columns with types, defaults and keys, checks, and indexes with predicates, as the database tells them."""
    found: dict[str, Any] = {}
    with connected(url) as connection:
        inspector = inspect(connection)
        for table in metadata.tables:
            for column in inspector.get_columns(table):
                described = {
                    name: str(column.get(name)) for name in ("type", "nullable", "default")
                }
                # The order of the columns is a part of the truth: the dict keeps it.
                found[f"{table}.{column['name']}"] = described
            found[f"{table} key"] = inspector.get_pk_constraint(table)["constrained_columns"]
            for check in inspector.get_check_constraints(table):
                found[f"{table} {check['name']}"] = check["sqltext"]
        query = (
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1"
            if connection.dialect.name == "sqlite"
            else "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1"
        )
        for name, sql in connection.execute(text(query)):
            if VERSION_TABLE not in name:
                # The same predicate may be written with other parentheses.
                found[name] = " ".join(re.sub(r"[()]", " ", sql).split())
    return found


def test_the_migrations_make_the_tables_of_the_schema(url: str) -> None:
    assert migrate.differences(url) == []


def test_the_migrations_make_the_same_defaults_and_partial_indexes_as_the_schema(
    url: str, empty_url: str
) -> None:
    with connected(empty_url) as connection:
        metadata.create_all(connection)
    expected, found = definitions(empty_url), definitions(url)
    assert found == expected
    assert list(found) == list(expected)
    assert {index.name for table in metadata.tables.values() for index in table.indexes} <= {*found}


def test_a_difference_is_told(url: str) -> None:
    execute(url, "ALTER TABLE jobqueue_jobs ADD COLUMN extra TEXT", "DROP INDEX jobqueue_jobs_due")
    found = migrate.differences(url)
    assert len(found) == 2
    assert "extra" in "".join(found)
    assert "jobqueue_jobs_due" in "".join(found)


def test_an_upgrade_makes_the_schema_and_a_second_one_changes_nothing(empty_url: str) -> None:
    assert migrate.upgrade(empty_url) == (None, REVISION)
    assert names(empty_url) == {*metadata.tables, *VIEWS, VERSION_TABLE}
    instance = scalar(empty_url, "SELECT value FROM jobqueue_meta WHERE key = 'instance'")
    execute(empty_url, "INSERT INTO jobqueue_jobs (task) VALUES ('add')")

    assert migrate.upgrade(empty_url) == (REVISION, REVISION)
    assert scalar(empty_url, "SELECT count(*) FROM jobqueue_jobs") == 1
    assert scalar(empty_url, "SELECT value FROM jobqueue_meta") == instance
    assert migrate.differences(empty_url) == []


def test_an_upgrade_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    execute(
        empty_url, "CREATE TABLE jobqueue_throughput (id INTEGER)"
    )  # The last name to be taken.
    with pytest.raises(Exception, match="jobqueue_throughput"):
        migrate.upgrade(empty_url)
    assert names(empty_url) == {"jobqueue_throughput"}
    execute(empty_url, "DROP TABLE jobqueue_throughput")
    assert migrate.upgrade(empty_url) == (None, REVISION)


def test_ten_processes_that_upgrade_an_empty_database_at_once_all_succeed(empty_url: str) -> None:
    # They wait for the end of their input, so that all of them begin when the last one is ready.
    program = (
        "import sys; from alembic import command; from jobqueue.store import migrate;"
        "print('ready', flush=True); sys.stdin.read(); print(migrate.upgrade(sys.argv[1]))"
    )
    processes = [
        popen(
            [sys.executable, "-c", program, empty_url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=Path(__file__).parents[2],
        )
        for _ in range(10)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n", process.communicate(timeout=60)
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    answers = [process.communicate(timeout=60) for process in processes]

    assert [process.returncode for process in processes] == [0] * 10, answers
    told = sorted(out.strip() for out, _ in answers)
    assert told == [repr((REVISION, REVISION))] * 9 + [repr((None, REVISION))]
    assert migrate.differences(empty_url) == []
    assert scalar(empty_url, f"SELECT count(*) FROM {VERSION_TABLE}") == 1
    assert scalar(empty_url, "SELECT count(*) FROM jobqueue_meta") == 1


def test_a_newer_schema_is_refused_and_left_as_it_is(url: str) -> None:
    execute(
        url,
        f"UPDATE {VERSION_TABLE} SET version_num = '9999'",
        "ALTER TABLE jobqueue_jobs ADD COLUMN from_the_future TEXT",
    )
    before = names(url), definitions(url)
    store = Store(url)
    with pytest.raises(SchemaNewer, match="9999"):
        migrate.upgrade(url)
    with pytest.raises(SchemaNewer, match="9999"), store.write():
        pass
    store.close()
    assert (names(url), definitions(url)) == before
    assert scalar(url, f"SELECT version_num FROM {VERSION_TABLE}") == "9999"


@pytest.mark.parametrize("kept", ["with its row", "empty"])
def test_a_version_table_that_was_left_behind_is_refused_by_name_or_used_again(
    url: str, kept: str
) -> None:
    execute(url, *(f"DROP VIEW {view}" for view in VIEWS))
    with connected(url) as connection:
        metadata.drop_all(connection)
    if kept == "empty":
        execute(url, f"DELETE FROM {VERSION_TABLE}")
        assert migrate.upgrade(url) == (None, REVISION)
        assert names(url) == {*metadata.tables, *VIEWS, VERSION_TABLE}
        return
    store = Store(url)
    for use in (lambda: migrate.upgrade(url), store.require_schema):
        with pytest.raises(SchemaOutdated, match=f"or drop {VERSION_TABLE} and"):
            use()
    store.close()


def test_a_database_without_the_schema_gets_it_only_where_it_is_a_file(
    empty_url: str, backend_name: str
) -> None:
    store = Store(empty_url)
    if backend_name == "sqlite":
        store.require_schema(makes=True)
        assert migrate.differences(empty_url) == []
    else:
        with pytest.raises(SchemaOutdated, match="run jobqueue db upgrade"):
            store.require_schema(makes=True)
        assert names(empty_url) == set()
    store.close()


def test_the_printed_sql_makes_the_whole_schema_statement_by_statement(
    empty_url: str, backend_name: str
) -> None:
    printed = migrate.ddl(backend_of(parse(empty_url)).name)
    for name in {*metadata.tables, *VIEWS, VERSION_TABLE}:
        assert re.search(rf"^CREATE (TABLE|VIEW) {name}\b", printed, flags=re.MULTILINE), name

    without_comments = re.sub(r"^--.*$", "", printed, flags=re.MULTILINE)
    statements = [part.strip() for part in without_comments.split(";\n") if part.strip()]
    engine = backend_of(parse(empty_url)).engine(parse(empty_url), 1, makes=True)
    if backend_name == "sqlite":
        raw = engine.raw_connection()
        for statement in statements:
            raw.driver_connection.execute(statement)  # type: ignore[union-attr]
        raw.close()
    else:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    engine.dispose()

    assert migrate.differences(empty_url) == []
    assert migrate.upgrade(empty_url) == (REVISION, REVISION)
    assert names(empty_url) == {*metadata.tables, *VIEWS, VERSION_TABLE}


def test_the_printed_sql_gives_each_database_an_instance_id_of_its_own(
    url: str, backend_name: str
) -> None:
    instance = scalar(url, "SELECT value FROM jobqueue_meta WHERE key = 'instance'")
    assert re.fullmatch(r"[0-9a-f]{32}", instance)
    assert not re.search(r"[0-9a-f]{32}", migrate.ddl(backend_of(parse(url)).name))


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_new_database_file_is_its_owners_only(empty_url: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        migrate.upgrade(empty_url)
        store = Store(empty_url)
        with store.write() as connection:
            connection.execute(text("INSERT INTO jobqueue_jobs (task) VALUES ('add')"))
            file = Path(str(store.url.database))
            modes = {
                path.name: stat.S_IMODE(path.stat().st_mode)
                for path in file.parent.glob("empty.db*")
            }
        store.close()
    finally:
        os.umask(before)
    assert {"empty.db", "empty.db-wal", "empty.db-shm"} <= modes.keys()
    assert set(modes.values()) == {0o600}


# Beside an application's own alembic


def proposals(url: str, theirs: MetaData, **options: Any) -> list[str]:
    """What an application's `alembic revision --autogenerate` would do."""
    with connected(url) as connection:
        context = MigrationContext.configure(connection, opts=options)
        return sorted(str(change[0]) for change in flat(compare_metadata(context, theirs)))


def flat(changes: Any) -> Iterator[tuple[Any, ...]]:
    for change in changes:
        if isinstance(change, list):
            yield from flat(change)
        else:
            yield change


def their_metadata() -> MetaData:
    theirs = MetaData()
    orders = Table("orders", theirs, Column("id", Integer, primary_key=True), Column("name", Text))
    Index("orders_name", orders.c.name)
    return theirs


def test_an_applications_alembic_leaves_our_tables_alone(url: str) -> None:
    theirs = their_metadata()
    assert "remove_table" in proposals(url, theirs)
    assert proposals(url, theirs, include_object=include_object) == ["add_index", "add_table"]
    with connected(url) as connection:
        theirs.create_all(connection)
    assert proposals(url, theirs, include_object=include_object) == []


def test_an_applications_alembic_still_sees_its_own_tables_change(url: str) -> None:
    execute(
        url,
        "CREATE TABLE orders (id INTEGER NOT NULL PRIMARY KEY, old TEXT)",
        "CREATE INDEX orders_old ON orders (old)",
        "CREATE TABLE forgotten (id INTEGER PRIMARY KEY)",
    )
    assert proposals(url, their_metadata(), include_object=include_object) == [
        "add_column",
        "add_index",
        "remove_column",
        "remove_index",
        "remove_table",
    ]


def test_an_applications_alembic_does_not_touch_our_tables_when_its_metadata_has_them_too(
    empty_url: str,
) -> None:
    theirs = their_metadata()
    for table in metadata.tables.values():
        table.to_metadata(theirs)
    assert proposals(empty_url, theirs, include_object=include_object) == ["add_index", "add_table"]


def test_what_is_in_a_table_is_ours_by_the_tables_name_and_not_by_its_own() -> None:
    ours, orders = metadata.tables["jobqueue_jobs"], their_metadata().tables["orders"]
    added_by_them = Index("newest", ours.to_metadata(MetaData()).c.created_at)
    assert not include_object(added_by_them, "newest", "index", True, None)
    assert not include_object(ours.c.task, "task", "column", False, None)
    theirs = Index("jobqueue_orders", orders.c.name)
    assert include_object(theirs, "jobqueue_orders", "index", False, None)
    assert include_object(orders.c.name, "name", "column", True, None)


ENV = """
from alembic import context
from sqlalchemy import NullPool, create_engine

url = context.config.get_main_option("sqlalchemy.url")
with create_engine(url, poolclass=NullPool).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
assert context.config.attributes["theirs"]
context.config.attributes["ended"] = True
"""

MIGRATION = """
import sqlalchemy as sa
from alembic import context, op

revision, down_revision = "a1", None

def upgrade():
    context.config.attributes["enqueue"](op)
    op.create_table("after_it", sa.Column("id", sa.Integer, primary_key=True))
"""


@pytest.mark.parametrize("how", ["of its own", "within"])
def test_a_migration_of_the_applications_that_enqueues_goes_on_to_its_end(
    how: str, empty_url: str, backend_name: str, tmp_path: Path
) -> None:
    """The file gets its schema in the midst of it; `op` and `context` stay the application's."""
    if backend_name == "postgres":
        migrate.upgrade(empty_url)
    (tmp_path / "theirs/versions").mkdir(parents=True)
    (tmp_path / "theirs/env.py").write_text(ENV)
    (tmp_path / "theirs/script.py.mako").touch()
    (tmp_path / "theirs/versions/a1.py").write_text(MIGRATION)
    url = make_url(empty_url)
    if backend_name == "postgres":
        url = url.set(drivername="postgresql+psycopg")
    config = Config()
    config.set_main_option("script_location", str(tmp_path / "theirs"))
    config.set_main_option(
        "sqlalchemy.url", url.render_as_string(hide_password=False).replace("%", "%%")
    )
    with JobQueue(empty_url) as jobs:

        @jobs.task
        def backfill(x: int) -> None: ...

        def enqueue(op: Any) -> None:
            task = backfill.within(op.get_bind()) if how == "within" else backfill
            task.enqueue(1)

        config.attributes.update(theirs=True, enqueue=enqueue)
        command.upgrade(config, "head")
        assert config.attributes["ended"]
        assert [job.task for job in jobs.list()] == ["backfill"]
    assert "after_it" in names(empty_url)


def test_making_the_schema_says_nothing_to_an_application_that_logs(
    empty_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with ThreadPoolExecutor() as others:
        logger = logging.getLogger("alembic.runtime.migration")
        with quiet(logger.name):
            others.submit(logger.info, "a migration of the application's own").result()
            logger.warning("something is wrong")
        migrate.upgrade(empty_url)
    assert [record.getMessage() for record in caplog.records] == [
        "a migration of the application's own",
        "something is wrong",
    ]


def test_threads_that_upgrade_at_the_same_time_do_not_mix_up_their_databases(
    tmp_path: Path,
) -> None:
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(4)]
    with ThreadPoolExecutor(len(urls)) as threads:
        done = list(threads.map(migrate.upgrade, urls))
    assert done == [(None, REVISION)] * len(urls)
    assert [migrate.differences(url) for url in urls] == [[]] * len(urls)


@pytest.mark.databases("sqlite")
def test_a_file_whose_tables_were_all_dropped_gets_them_again(url: str) -> None:
    """As an application's tests do: `MetaData.reflect()` sees no views."""
    with connected(url) as connection:
        everything = MetaData()
        everything.reflect(connection)
        everything.drop_all(connection)
    assert migrate.upgrade(url) == (None, REVISION)
    assert names(url) == {*metadata.tables, *VIEWS, VERSION_TABLE}
