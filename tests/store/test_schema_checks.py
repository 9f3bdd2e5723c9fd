"""The schema when a database is first used: missing, made, older, newer."""

import os
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from psycopg.types import TypeInfo
from sqlalchemy import event, select, text

from jobqueue.errors import (
    SchemaNewer,
    SchemaOutdated,
)
from jobqueue.store import migrate
from jobqueue.store.database import Store
from jobqueue.store.schema import VERSION_TABLE, jobs
from tests.store.conftest import ONLY_POSTGRES, ONLY_SQLITE, file_of

# The schema


@ONLY_POSTGRES
def test_a_database_without_the_schema_says_which_command_makes_it(empty_url: str) -> None:
    with closing(Store(empty_url)) as store:
        for use in (store.read, store.write):
            with pytest.raises(SchemaOutdated, match="run jobqueue db upgrade"), use():
                pass
        migrate.upgrade(empty_url)
        with store.read() as connection:  # The same store, once it is there.
            assert connection.execute(select(jobs.c.id)).all() == []


@ONLY_SQLITE
def test_a_file_is_made_on_first_use_for_its_owner_only(empty_url: str) -> None:
    file = file_of(empty_url)
    with closing(Store(empty_url)) as store:
        assert not file.exists()
        store.require_schema(makes=True)
        with store.read() as connection:
            assert connection.execute(select(jobs.c.id)).all() == []
        with store.write():
            pass
    made = {each.name: stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir()}
    assert made == {"empty.db": 0o600, "empty.db-jobqueue-lock": 0o600}


@ONLY_SQLITE
def test_the_lock_has_the_mode_of_a_file_that_was_there(empty_url: str) -> None:
    file = file_of(empty_url)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE app (x)")
    file.chmod(0o660)
    before = os.umask(0)
    try:
        with closing(Store(empty_url)) as store:
            store.require_schema(makes=True)
    finally:
        os.umask(before)
    lock = file.with_name("empty.db-jobqueue-lock")
    assert [stat.S_IMODE(each.stat().st_mode) for each in (file, lock)] == [0o660, 0o660]


@ONLY_SQLITE
def test_eight_that_meet_a_fresh_file_at_once_all_find_the_schema(
    empty_url: str, together: Any
) -> None:
    def use() -> list[Any]:
        with closing(Store(empty_url)) as store:
            store.require_schema(makes=True)
            with store.write() as connection:
                return list(connection.execute(select(jobs.c.id)))

    assert together(*[use] * 8) == [[]] * 8


@ONLY_SQLITE
def test_fresh_files_that_are_met_at_once_all_get_their_own_schema(
    tmp_path: Path, backend_name: str, together: Any
) -> None:
    """Alembic knows of one connection at a time in a process, and of one stdout."""

    def use(number: int) -> list[Any]:
        with closing(Store(f"sqlite:///{tmp_path / f'{number}.db'}")) as store:
            store.require_schema(makes=True)
            with store.write() as connection:
                return list(connection.execute(select(jobs.c.id)))

    before = sys.stdout
    assert together(*[lambda number=number: use(number) for number in range(8)]) == [[]] * 8
    assert sys.stdout is before


def test_a_newer_schema_is_left_alone(store: Store, store_url: str) -> None:
    with store.write() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with closing(Store(store_url)) as other:
        with pytest.raises(SchemaNewer, match="9999"), other.read():
            pass
    with pytest.raises(SchemaNewer, match="nothing was changed"):
        migrate.upgrade(store_url)


def test_an_older_schema_says_which_command_upgrades_it(store: Store, store_url: str) -> None:
    with store.write() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0000'"))
    with closing(Store(store_url)) as other:
        with pytest.raises(SchemaOutdated, match="0000.*run jobqueue db upgrade"), other.write():
            pass


@ONLY_POSTGRES
def test_the_first_use_asks_a_server_for_the_tables_the_revision_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(TypeInfo, "fetch", lambda _connection, name: asked.append(name))
    event.listen(
        store.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: asked.append(statement),
    )
    store.require_schema()
    assert len(asked) == 2, asked
