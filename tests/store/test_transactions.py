"""Transactions: what is tried again, what rolls back, and how writers of one file take turns."""

import errno
import fcntl
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from jobqueue.errors import (
    DatabaseReplaced,
)
from jobqueue.records import JobFilter
from jobqueue.store import migrate
from jobqueue.store.database import Store
from jobqueue.store.dialects import sqlite as sqlite_backend
from jobqueue.store.dialects import sqlite_file
from jobqueue.store.dialects.sqlite_file import DatabaseFile
from jobqueue.store.jobs import Jobs
from tests.store.conftest import ONLY_POSTGRES, ONLY_SQLITE, StoreKit, file_of

KILL_ME = text("SELECT pg_terminate_backend(pg_backend_pid())")


# Once more, or not


@ONLY_POSTGRES
def test_work_is_done_again_on_a_new_connection_when_the_old_one_dies(kit: StoreKit) -> None:
    runs: list[int] = []

    def work(connection: Any) -> str:
        runs.append(len(runs))
        kit.jobs.insert([kit.new()], connection)
        if len(runs) == 1:
            connection.execute(KILL_ME)
        return f"run {len(runs)}"

    assert kit.store.transact(work) == "run 2"
    assert kit.jobs.count(JobFilter()) == 1


@ONLY_POSTGRES
def test_work_is_done_again_once_and_no_more(kit: StoreKit) -> None:
    runs: list[int] = []

    def work(connection: Any) -> None:
        runs.append(1)
        connection.execute(KILL_ME)

    with pytest.raises(DBAPIError) as caught:
        kit.store.transact(work)
    assert caught.value.connection_invalidated
    assert len(runs) == 2
    assert kit.jobs.count(JobFilter()) == 0


@ONLY_POSTGRES
def test_a_connection_that_died_while_idle_costs_an_enqueue_nothing(
    kit: StoreKit, second_store: Any
) -> None:
    kit.add()
    with second_store().write() as connection:
        ours = text(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        assert connection.execute(ours).scalar() >= 1
    kit.add()
    assert kit.jobs.count(JobFilter()) == 2


@ONLY_POSTGRES
@pytest.mark.parametrize("count", [1, 2])
def test_a_connection_that_was_closed_while_idle_costs_an_enqueue_nothing(
    kit: StoreKit, count: int
) -> None:
    with kit.store.read() as connection:
        driver = connection.connection.driver_connection
    driver.close()
    kit.add_many(count)
    assert kit.jobs.count(JobFilter()) == count


@ONLY_POSTGRES
def test_the_settings_of_a_transaction_begin_it_as_every_other(
    second_store: Any, together: Any
) -> None:
    store = second_store(default_transaction_isolation="serializable")

    def settings(*, limits: bool) -> list[str]:
        names = "transaction_isolation", "lock_timeout"
        with store.write() as connection:
            if limits:
                store.backend.limit_lock_wait(connection)
            return [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]

    (in_thread,) = together(lambda: [settings(limits=True), settings(limits=False)])
    assert in_thread == [["read committed", "500ms"], ["read committed", "0"]]
    assert settings(limits=True) == ["read committed", "500ms"]


@ONLY_POSTGRES
def test_a_session_that_is_lost_before_its_settings_is_a_lost_connection(
    kit: StoreKit, second_store: Any, together: Any
) -> None:
    kill = text("SELECT pg_terminate_backend(:pid, 5000)")

    def lose() -> bool:
        with pytest.raises(DBAPIError), kit.store.write() as connection:
            driver: Any = connection.connection.driver_connection
            with second_store().write() as other:
                other.execute(kill, {"pid": driver.info.backend_pid})
            with pytest.raises(DBAPIError) as caught:  # Not first by what ends the transaction.
                kit.store.backend.limit_lock_wait(connection)
            raise caught.value
        return caught.value.connection_invalidated

    assert (together(lose), lose()) == ([True], True)


@ONLY_POSTGRES
def test_a_commit_whose_answer_is_lost_is_not_repeated(kit: StoreKit, second_store: Any) -> None:
    """Nobody can tell whether it was done, so only the caller may decide."""
    runs: list[int] = []
    executioner = second_store()

    def work(connection: Any) -> None:
        runs.append(1)
        kit.jobs.insert([kit.new()], connection)
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
        with executioner.write() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    with pytest.raises(DBAPIError):
        kit.store.transact(work)
    assert len(runs) == 1


def test_an_error_in_the_work_rolls_everything_back(kit: StoreKit) -> None:
    runs: list[int] = []

    def work(connection: Any) -> None:
        runs.append(1)
        kit.jobs.insert([kit.new()], connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kit.store.transact(work)
    assert len(runs) == 1
    assert kit.jobs.count(JobFilter()) == 0
    assert kit.add()


def test_an_error_of_the_database_that_stays_is_raised_at_once(kit: StoreKit) -> None:
    runs: list[int] = []

    def work(connection: Any) -> None:
        runs.append(1)
        connection.execute(text("SELECT * FROM no_such_table"))

    with pytest.raises(DBAPIError, match="no_such_table"):
        kit.store.transact(work)
    assert len(runs) == 1


# One job alone, as a statement that is a transaction of its own


@ONLY_POSTGRES
def test_an_enqueue_whose_answer_is_lost_is_not_repeated(kit: StoreKit, store: Store) -> None:
    with store.write() as connection:
        connection.execute(text("CREATE SEQUENCE runs"))  # It counts what is rolled back too.
        connection.execute(
            text(
                "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " PERFORM nextval('runs'); PERFORM pg_terminate_backend(pg_backend_pid());"
                " RETURN NEW; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE TRIGGER die BEFORE INSERT ON jobqueue_jobs"
                " FOR EACH ROW EXECUTE FUNCTION die()"
            )
        )
    try:
        with pytest.raises(DBAPIError) as caught:
            kit.add()
        assert caught.value.connection_invalidated
        with store.read() as connection:
            assert connection.execute(text("SELECT nextval('runs')")).scalar() == 2
    finally:
        with store.write() as connection:
            connection.execute(text("DROP FUNCTION die CASCADE"))
            connection.execute(text("DROP SEQUENCE runs"))
    assert kit.jobs.count(JobFilter()) == 0
    assert kit.add()


@ONLY_POSTGRES
def test_a_server_that_a_pooler_says_is_gone_counts_as_an_answer_that_was_lost(
    store: Store,
) -> None:
    gone = "DO $$ BEGIN RAISE 'server conn crashed?' USING ERRCODE = '08P01'; END $$"
    with pytest.raises(OperationalError) as caught:
        store.execute_autocommit(gone, {})
    assert caught.value.connection_invalidated
    other = "DO $$ BEGIN RAISE 'no' USING ERRCODE = '22000'; END $$"
    assert store.execute_autocommit(other, {}) is None, "a transaction may try again"


def test_an_error_in_an_enqueue_is_raised_as_that_of_a_transaction(kit: StoreKit) -> None:
    for _ in range(10):  # More than the pool has connections.
        with pytest.raises(IntegrityError, match="(?i)null"):
            kit.add(max_attempts=None)
    assert kit.jobs.count(JobFilter()) == 0
    assert kit.add()


def test_a_transaction_after_an_enqueue_rolls_back(kit: StoreKit, store_url: str) -> None:
    with closing(Store(store_url, connections=1)) as store:
        Jobs(store).insert([kit.new()])
        with pytest.raises(ZeroDivisionError), store.write() as connection:
            Jobs(store).insert([kit.new()], connection)
            raise ZeroDivisionError
        assert Jobs(store).count(JobFilter()) == 1


@ONLY_SQLITE
def test_transactions_one_after_the_other_use_one_connection_of_many(store: Store) -> None:
    """It has in its cache what it has changed; the others would have to read it again."""
    with store.read(), store.read(), store.read():
        pass
    used = set()
    for _ in range(5):
        with store.write() as connection:
            used.add(id(connection.connection.driver_connection))
    assert len(used) == 1


WRITTEN = Path("/proc/self/io")


@ONLY_SQLITE
@pytest.mark.skipif(not WRITTEN.exists(), reason="only Linux tells what a process has written")
def test_a_claim_of_jobs_that_lie_far_apart_writes_nothing_before_its_commit(
    kit: StoreKit,
) -> None:
    """Neither copies of the pages, to undo the statement, nor the pages themselves, too early."""

    def written() -> int:
        return int(re.search(r"wchar: (\d+)", WRITTEN.read_text())[1])  # type: ignore[index]

    holder = kit.worker()
    fill = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
        " INSERT INTO jobqueue_jobs (task, queue, priority) SELECT 'add', 'q', i % 40 FROM n"
    )
    with kit.store.write() as connection:
        connection.execute(text(fill))
    with kit.store.write() as connection:
        before = written()
        claims = kit.claims.claim(connection, holder, "q", limit=500, free=500)
        assert written() - before < 100_000
    assert {claim.priority for claim in claims} == {0}
    assert written() - before > 500 * 4096  # Each is on a page of its own.


@ONLY_SQLITE
def test_an_enqueue_that_finds_the_file_locked_for_too_long_says_so(
    store_url: str, kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = "PRAGMA busy_timeout=0"
    monkeypatch.setattr(sqlite_backend, "SET_BUSY_TIMEOUT", at_once)
    monkeypatch.setattr(sqlite_file, "_PRAGMAS", (at_once,))
    with closing(Store(store_url)) as store, closing(sqlite3.connect(file_of(store_url))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            Jobs(store).insert([kit.new()])
        other.rollback()
        assert Jobs(store).insert([kit.new()])


@ONLY_SQLITE
def test_an_enqueue_takes_its_turn(kit: StoreKit, store_url: str) -> None:
    lock = Path(f"{file_of(store_url)}-jobqueue-lock")
    turns: list[bool] = []

    def see(statement: str) -> None:
        if "INSERT" in statement:
            with lock.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    turns.append(True)
                else:
                    turns.append(False)

    with closing(Store(store_url, connections=1)) as store:
        with store.read() as connection:
            connection.connection.driver_connection.set_trace_callback(see)
        Jobs(store).insert([kit.new()])
        assert turns == [True]
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # It is over with the enqueue.


@ONLY_SQLITE
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("gone", ["deleted", "replaced"])
def test_nothing_is_written_to_a_file_that_is_no_longer_there(
    store_url: str, kit: StoreKit, gone: str, count: int
) -> None:
    kit.add()
    file = file_of(store_url)
    file.unlink()
    if gone == "replaced":
        migrate.upgrade(store_url)
    for _ in range(20):  # More than there are connections: a new one is no way into another file.
        with pytest.raises(DatabaseReplaced, match="deleted or replaced"):
            kit.add_many(count)
    assert file.exists() == (gone == "replaced")
    kit.store.close()
    kit.add_many(count)
    assert kit.jobs.count(JobFilter()) == count


@ONLY_SQLITE
def test_a_file_restored_after_a_close_beside_an_enqueue_gets_what_is_enqueued_then(
    kit: StoreKit, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_of(store_url)
    backup = shutil.copy(file, file.with_suffix(".backup"))
    keep = DatabaseFile.keep_connection

    def close_first(*taken: Any) -> None:  # As another thread may, in the midst of an enqueue.
        kit.store.close()
        keep(*taken)

    with monkeypatch.context() as patched:
        patched.setattr(DatabaseFile, "keep_connection", close_first)
        kit.add()
    for beside in ("-wal", "-shm"):
        Path(f"{file}{beside}").unlink(missing_ok=True)
    Path(backup).replace(file)
    made = [kit.add(), kit.add()]
    with closing(sqlite3.connect(file)) as other:
        assert [id_ for (id_,) in other.execute("SELECT id FROM jobqueue_jobs")] == made


@ONLY_SQLITE
def test_a_file_that_cannot_be_looked_at_for_a_moment_is_taken_for_the_same(
    store_url: str, kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.add()
    stat_of = Path.stat

    def stat(path: Path, **how: Any) -> Any:
        if path == file_of(store_url):
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat_of(path, **how)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", stat)
        kit.add()
    assert kit.jobs.count(JobFilter()) == 2


def prepared(store: Store) -> int:
    """How many statements the only connection of a store has prepared."""
    with store.read() as connection:
        return connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()


@ONLY_POSTGRES
def test_only_the_statement_that_enqueues_one_job_is_prepared(
    kit: StoreKit, store_url: str
) -> None:
    with closing(Store(store_url, connections=1)) as store:
        for _ in range(6):
            Jobs(store).insert([kit.new()])
            Jobs(store).insert([kit.new(), kit.new(unique_key="k")])
        assert prepared(store) == 1


@ONLY_POSTGRES
def test_a_prepared_statement_is_planned_at_each_execution(store_url: str, kit: StoreKit) -> None:
    """From the sixth on, the server would keep a plan that was made for a smaller table."""
    with closing(Store(store_url, connections=1)) as store:
        for _ in range(7):
            Jobs(store).insert([kit.new()])
        plans = text("SELECT generic_plans, custom_plans FROM pg_prepared_statements")
        with store.read() as connection:
            assert connection.execute(plans).one() == (0, 7)


@ONLY_POSTGRES
def test_behind_a_pooler_nothing_is_prepared(kit: StoreKit, store: Store, store_url: str) -> None:
    """A pooler tells its clients process ids that the server does not know."""
    with store.write() as connection:
        connection.execute(text("CREATE FUNCTION public.pg_backend_pid() RETURNS int RETURN 7"))
    try:
        url = f"{store_url}&options=-c%20search_path%3Dpublic,pg_catalog"
        with closing(Store(url, connections=1)) as pooled:
            for _ in range(6):
                Jobs(pooled).insert([kit.new()])
            assert prepared(pooled) == 0
    finally:
        with store.write() as connection:
            connection.execute(text("DROP FUNCTION public.pg_backend_pid"))
    assert kit.jobs.count(JobFilter()) == 6


@ONLY_POSTGRES
def test_a_prepared_statement_that_is_gone_costs_an_enqueue_nothing(
    kit: StoreKit, store_url: str
) -> None:
    with closing(Store(store_url, connections=1)) as store:
        Jobs(store).insert([kit.new()])
        with store.read() as connection:
            connection.execute(text("DEALLOCATE ALL"))
        assert prepared(store) == 0
        Jobs(store).insert([kit.new()])
    assert kit.jobs.count(JobFilter()) == 2
