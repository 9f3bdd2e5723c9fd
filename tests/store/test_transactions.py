"""Transactions: what is tried again, what rolls back, and how writers of one file take turns."""

import errno
import fcntl
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from jobqueue.errors import ConfigurationError, DatabaseReplaced, SchemaNewer, SchemaOutdated
from jobqueue.records import JobFilter
from jobqueue.store.schema import VERSION_TABLE, jobs
from jobqueue.store import migrate
from jobqueue.store.dialects import sqlite_write_lock
from jobqueue.store.dialects import sqlite as sqlite_backend
from jobqueue.store.jobs import Jobs
from jobqueue.store.dialects.sqlite_write_lock import WriteLock
from jobqueue.store.database import Store

ONLY_POSTGRES = pytest.mark.parametrize("backend_name", ["postgres"])
ONLY_SQLITE = pytest.mark.parametrize("backend_name", ["sqlite"])

KILL_ME = text("SELECT pg_terminate_backend(pg_backend_pid())")


# Once more, or not


@ONLY_POSTGRES
def test_work_is_done_again_on_a_new_connection_when_the_old_one_dies(desk: Any) -> None:
    runs: list[int] = []

    def work(connection: Any) -> str:
        runs.append(len(runs))
        desk.jobs.insert([desk.new()], connection)
        if len(runs) == 1:
            connection.execute(KILL_ME)
        return f"run {len(runs)}"

    assert desk.store.transact(work) == "run 2"
    assert desk.jobs.count(JobFilter()) == 1


@ONLY_POSTGRES
def test_work_is_done_again_once_and_no_more(desk: Any) -> None:
    runs: list[int] = []

    def work(connection: Any) -> None:
        runs.append(1)
        connection.execute(KILL_ME)

    with pytest.raises(DBAPIError) as caught:
        desk.store.transact(work)
    assert caught.value.connection_invalidated
    assert len(runs) == 2
    assert desk.jobs.count(JobFilter()) == 0


@ONLY_POSTGRES
def test_a_connection_that_died_while_idle_costs_an_enqueue_nothing(
    desk: Any, second_store: Any
) -> None:
    desk.add()
    with second_store().write() as connection:
        ours = text(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        assert connection.execute(ours).scalar() >= 1
    desk.add()
    assert desk.jobs.count(JobFilter()) == 2


@ONLY_POSTGRES
@pytest.mark.parametrize("count", [1, 2])
def test_a_connection_that_was_closed_while_idle_costs_an_enqueue_nothing(
    desk: Any, count: int
) -> None:
    with desk.store.read() as connection:
        driver = connection.connection.driver_connection
    driver.close()
    desk.add_many(count)
    assert desk.jobs.count(JobFilter()) == count


@ONLY_POSTGRES
def test_a_commit_whose_answer_is_lost_is_not_repeated(desk: Any, second_store: Any) -> None:
    """Nobody can tell whether it was done, so only the caller may decide."""
    runs: list[int] = []
    executioner = second_store()

    def work(connection: Any) -> None:
        runs.append(1)
        desk.jobs.insert([desk.new()], connection)
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
        with executioner.write() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    with pytest.raises(DBAPIError):
        desk.store.transact(work)
    assert len(runs) == 1


def test_an_error_in_the_work_rolls_everything_back(desk: Any) -> None:
    runs: list[int] = []

    def work(connection: Any) -> None:
        runs.append(1)
        desk.jobs.insert([desk.new()], connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        desk.store.transact(work)
    assert len(runs) == 1
    assert desk.jobs.count(JobFilter()) == 0
    assert desk.add()


def test_an_error_of_the_database_that_stays_is_raised_at_once(desk: Any) -> None:
    runs: list[int] = []

    def work(connection: Any) -> None:
        runs.append(1)
        connection.execute(text("SELECT * FROM no_such_table"))

    with pytest.raises(DBAPIError, match="no_such_table"):
        desk.store.transact(work)
    assert len(runs) == 1


# One job alone, as a statement that is a transaction of its own


@ONLY_POSTGRES
def test_an_enqueue_whose_answer_is_lost_is_not_repeated(desk: Any, store: Store) -> None:
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
            desk.add()
        assert caught.value.connection_invalidated
        with store.read() as connection:
            assert connection.execute(text("SELECT nextval('runs')")).scalar() == 2
    finally:
        with store.write() as connection:
            connection.execute(text("DROP FUNCTION die CASCADE"))
            connection.execute(text("DROP SEQUENCE runs"))
    assert desk.jobs.count(JobFilter()) == 0
    assert desk.add()


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


def test_an_error_in_an_enqueue_is_raised_as_that_of_a_transaction(desk: Any) -> None:
    for _ in range(10):  # More than the pool has connections.
        with pytest.raises(IntegrityError, match="(?i)null"):
            desk.add(max_attempts=None)
    assert desk.jobs.count(JobFilter()) == 0
    assert desk.add()


def test_a_transaction_after_an_enqueue_rolls_back(desk: Any, store_url: str) -> None:
    with closing(Store(store_url, connections=1)) as store:
        Jobs(store).insert([desk.new()])
        with pytest.raises(ZeroDivisionError), store.write() as connection:
            Jobs(store).insert([desk.new()], connection)
            raise ZeroDivisionError
        assert Jobs(store).count(JobFilter()) == 1


@ONLY_SQLITE
def test_an_enqueue_that_finds_the_file_locked_for_too_long_says_so(
    store_url: str, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_backend, "BUSY_TIMEOUT", 0)
    with closing(Store(store_url)) as store, closing(sqlite3.connect(file_of(store_url))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            Jobs(store).insert([desk.new()])
        other.rollback()
        assert Jobs(store).insert([desk.new()])


@ONLY_SQLITE
def test_an_enqueue_takes_its_turn(desk: Any, store_url: str) -> None:
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
        Jobs(store).insert([desk.new()])
        assert turns == [True]
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # It is over with the enqueue.


@ONLY_SQLITE
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("gone", ["deleted", "replaced"])
def test_nothing_is_written_to_a_file_that_is_no_longer_there(
    store_url: str, desk: Any, gone: str, count: int
) -> None:
    desk.add()
    file = file_of(store_url)
    file.unlink()
    if gone == "replaced":
        migrate.upgrade(store_url)
    for _ in range(20):  # More than there are connections: a new one is no way into another file.
        with pytest.raises(DatabaseReplaced, match="deleted or replaced"):
            desk.add_many(count)
    assert file.exists() == (gone == "replaced")
    desk.store.close()
    desk.add_many(count)
    assert desk.jobs.count(JobFilter()) == count


@ONLY_SQLITE
def test_a_file_that_cannot_be_looked_at_for_a_moment_is_taken_for_the_same(
    store_url: str, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.add()
    stat_of = Path.stat

    def stat(path: Path, **how: Any) -> Any:
        if path == file_of(store_url):
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat_of(path, **how)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", stat)
        desk.add()
    assert desk.jobs.count(JobFilter()) == 2


def prepared(store: Store) -> int:
    """How many statements the only connection of a store has prepared."""
    with store.read() as connection:
        return connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()


@ONLY_POSTGRES
def test_only_the_statement_that_enqueues_one_job_is_prepared(desk: Any, store_url: str) -> None:
    with closing(Store(store_url, connections=1)) as store:
        for _ in range(6):
            Jobs(store).insert([desk.new()])
            Jobs(store).insert([desk.new(), desk.new(unique_key="k")])
        assert prepared(store) == 1


@ONLY_POSTGRES
def test_behind_a_pooler_nothing_is_prepared(desk: Any, store: Store, store_url: str) -> None:
    """A pooler tells its clients process ids that the server does not know."""
    with store.write() as connection:
        connection.execute(text("CREATE FUNCTION public.pg_backend_pid() RETURNS int RETURN 7"))
    try:
        url = f"{store_url}&options=-c%20search_path%3Dpublic,pg_catalog"
        with closing(Store(url, connections=1)) as pooled:
            for _ in range(6):
                Jobs(pooled).insert([desk.new()])
            assert prepared(pooled) == 0
    finally:
        with store.write() as connection:
            connection.execute(text("DROP FUNCTION public.pg_backend_pid"))
    assert desk.jobs.count(JobFilter()) == 6


@ONLY_POSTGRES
def test_a_prepared_statement_that_is_gone_costs_an_enqueue_nothing(
    desk: Any, store_url: str
) -> None:
    with closing(Store(store_url, connections=1)) as store:
        Jobs(store).insert([desk.new()])
        with store.read() as connection:
            connection.execute(text("DEALLOCATE ALL"))
        assert prepared(store) == 0
        Jobs(store).insert([desk.new()])
    assert desk.jobs.count(JobFilter()) == 2


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


# Turns on one file


def file_of(url: str) -> Path:
    return Path(make_url(url).database)


@ONLY_SQLITE
def test_a_commit_is_synced_and_readers_do_not_wait(store: Store) -> None:
    with store.read() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS]
    assert pragmas == ["wal", 2, 10_000]


PRAGMAS = ("journal_mode", "synchronous", "busy_timeout")


@ONLY_SQLITE
def test_a_transaction_that_reads_first_and_writes_later_never_meets_busy(
    desk: Any, second_store: Any, together: Any
) -> None:
    """Deferred, it would fail at once whenever another has written between its read and its write."""
    id_ = desk.add()
    stores = [desk.store, second_store(), second_store()]

    def add_up(store: Store) -> None:
        for _ in range(30):
            with store.write() as connection:
                before = connection.execute(select(jobs.c.snoozes)).scalar_one()
                connection.execute(jobs.update().values(snoozes=before + 1))

    assert together(*[lambda store=store: add_up(store) for store in stores]) == [None] * 3
    assert desk.row(id_).snoozes == 90


@ONLY_SQLITE
def test_a_write_transaction_holds_the_file_from_its_beginning(
    store: Store, store_url: str
) -> None:
    with store.write(), closing(sqlite3.connect(file_of(store_url), timeout=0)) as other:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


@ONLY_SQLITE
def test_a_read_transaction_holds_up_no_writer(store: Store, desk: Any) -> None:
    with store.read() as connection:
        before = connection.execute(select(jobs.c.id)).all()
        desk.add()
        assert connection.execute(select(jobs.c.id)).all() == before
    assert desk.jobs.count(JobFilter()) == 1


HOLDER = """
import sys
from jobqueue.store.dialects.sqlite_write_lock import WriteLock
with WriteLock(sys.argv[1]).held() as held:
    print(held, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder_of(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until it is told to go on."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], **pipes)
    try:
        assert child.stdout.readline() == "True\n"
        yield child
    finally:
        child.kill()
        child.communicate(timeout=30)


def lock_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "jobqueue-lock"}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "a.db-jobqueue-lock"


def test_a_lock_file_that_cannot_be_opened_is_done_without_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    elsewhere = WriteLock(str(tmp_path / "missing" / "jobqueue.db-jobqueue-lock"))
    with elsewhere.held() as held:
        assert not held
    assert unraisable == []


def test_the_kernel_lock_keeps_threads_apart(lock: Path, together: Any) -> None:
    shared = WriteLock(str(lock))
    inside, seen = [0], []

    def enter() -> None:
        for _ in range(50):
            with shared.held() as held:
                inside[0] += 1
                seen.append((held, inside[0]))
                inside[0] -= 1

    assert together(*[enter] * 4) == [None] * 4
    assert set(seen) == {(True, 1)}


def test_the_kernel_lock_keeps_processes_apart(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_write_lock, "PATIENCE", 60.0)
    got = threading.Event()
    mine = WriteLock(str(lock))

    def take() -> None:
        with mine.held() as held:
            if held:
                got.set()

    with holder_of(lock) as child:
        waiter = threading.Thread(target=take)
        waiter.start()
        with closing(os.fdopen(os.open(lock, os.O_RDWR))) as probe:
            import fcntl

            with pytest.raises(BlockingIOError):
                fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not got.is_set()
        child.stdin.write("go\n")
        child.stdin.flush()
        waiter.join(30)
        assert got.is_set()


def test_one_thread_waits_for_another_each_time_and_ends_with_it(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_write_lock, "PATIENCE", 60.0)
    real_wait = sqlite_write_lock._Waiter.wait
    mine = WriteLock(str(lock))
    seen: list[tuple[bool, bool]] = []
    waiters: set[threading.Thread] = set()

    def take() -> None:
        for _ in range(3):
            with holder_of(lock) as child:

                def wait(waiter: sqlite_write_lock._Waiter) -> bool:
                    child.kill()  # Not before somebody waits.
                    return real_wait(waiter)

                monkeypatch.setattr(sqlite_write_lock._Waiter, "wait", wait)
                with mine.held() as held:
                    seen.append((held, mine.waited))
            with mine.held() as held:
                seen.append((held, mine.waited))
            waiters.update(lock_threads())

    before = lock_threads()
    owner = threading.Thread(target=take)
    owner.start()
    owner.join(60)
    assert seen == [(True, True), (True, False)] * 3
    (waiter,) = waiters - before
    waiter.join(60)
    assert not waiter.is_alive()


def test_where_no_thread_can_wait_for_the_kernel_lock_it_is_done_without(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    mine = WriteLock(str(lock))
    with holder_of(lock) as child:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with mine.held() as held:
                assert not held
        child.kill()
    with mine.held() as held:
        assert held


@pytest.mark.parametrize("granted", [False, True])
def test_an_interrupted_wait_for_the_kernel_lock_leaves_it_to_others(
    lock: Path, monkeypatch: pytest.MonkeyPatch, granted: bool
) -> None:
    """Who catches a Ctrl-C may sit at a prompt for the rest of the day."""
    monkeypatch.setattr(sqlite_write_lock, "PATIENCE", 60.0)
    real_wait = sqlite_write_lock._Request.wait

    def interrupted(request: sqlite_write_lock._Request) -> bool:
        if granted:
            child.kill()
            assert real_wait(request)
        raise KeyboardInterrupt

    mine = WriteLock(str(lock))
    with holder_of(lock) as child:
        with monkeypatch.context() as patched:
            patched.setattr(sqlite_write_lock._Request, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt), mine.held():
                pass
        child.kill()
        child.wait(30)
        with WriteLock(str(lock)).held() as held:
            assert held
        with mine.held() as held:
            assert held


def test_the_kernel_lock_of_a_killed_process_is_free(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_write_lock, "PATIENCE", 60.0)
    with holder_of(lock) as child:
        child.kill()
        child.wait(30)
        with WriteLock(str(lock)).held() as held:
            assert held


def test_a_stopped_holder_delays_others_once_and_no_longer_afterwards(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_write_lock, "PATIENCE", 0.05)
    waits = 0
    real_wait = sqlite_write_lock._Waiter.wait

    def counted_wait(waiter: sqlite_write_lock._Waiter) -> bool:
        nonlocal waits
        waits += 1
        return real_wait(waiter)

    monkeypatch.setattr(sqlite_write_lock._Waiter, "wait", counted_wait)
    before = lock_threads()
    mine = WriteLock(str(lock))
    with holder_of(lock) as child:
        child.send_signal(signal.SIGSTOP)
        for _ in range(3):
            with mine.held() as held:
                assert not held
        assert waits == 1
        (waiter,) = lock_threads() - before
        child.kill()  # The kernel frees the lock of a stopped process too, once it is gone.
        child.wait(30)
        waiter.join(30)  # It was given up, but has the lock for a moment, now or later.
        with mine.held() as held:
            assert held
    assert waits == 1


@ONLY_SQLITE
def test_a_stopped_process_with_the_kernel_lock_does_not_stop_writers(
    desk: Any, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_write_lock, "PATIENCE", 0.05)
    desk.add()
    with holder_of(Path(f"{file_of(store_url)}-jobqueue-lock")) as child:
        child.send_signal(signal.SIGSTOP)
        desk.add_many(3)
        assert desk.jobs.count(JobFilter()) == 4


@ONLY_SQLITE
def test_the_lock_file_stays(desk: Any, store_url: str) -> None:
    desk.add()
    desk.store.close()
    assert Path(f"{file_of(store_url)}-jobqueue-lock").exists()


def test_a_closed_store_may_be_used_again(desk: Any) -> None:
    desk.store.close()
    desk.add()


def test_a_store_does_not_show_its_password() -> None:
    store = Store("postgresql://me:secret@nowhere/db")
    assert "secret" not in repr(store)
    assert "me" in repr(store)


def test_an_error_does_not_show_the_parameters(store: Store) -> None:
    with pytest.raises(DBAPIError, match="no_such") as caught, store.read() as connection:
        connection.execute(text("SELECT :x FROM no_such"), {"x": "hush"})
    assert "hush" not in str(caught.value)


def test_a_store_that_is_closed_leaves_no_thread_that_waits_for_the_lock(
    tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    def waits() -> bool:
        return any(thread.name == "jobqueue-lock" for thread in threading.enumerate())

    store = Store(f"sqlite:///{tmp_path / 'jobqueue.db'}")
    store.require_schema()
    taken = threading.Event()

    def hold() -> None:
        with WriteLock(f"{tmp_path / 'jobqueue.db'}-jobqueue-lock").held():
            taken.set()
            wait_until(waits)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(10)
    with store.write():
        assert waits()
    holder.join()
    store.close()
    assert not waits()
