"""Writers of one SQLite file take turns, by its locks and by ours."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from jobqueue.records import JobFilter
from jobqueue.store.database import Store
from jobqueue.store.dialects import sqlite, sqlite_write_lock
from jobqueue.store.dialects.sqlite_write_lock import WriteLock
from jobqueue.store.schema import jobs
from tests.store.conftest import ONLY_SQLITE, StoreKit, file_of

# Turns on one file


@ONLY_SQLITE
def test_a_commit_is_synced_and_readers_do_not_wait(store: Store) -> None:
    with store.read() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS]
    assert pragmas == ["wal", 2, 10_000]


PRAGMAS = ("journal_mode", "synchronous", "busy_timeout")


@ONLY_SQLITE
def test_a_transaction_that_reads_first_and_writes_later_never_meets_busy(
    kit: StoreKit, second_store: Any, together: Any
) -> None:
    """Deferred, it would fail at once whenever another has written between its read and its write."""
    id_ = kit.add()
    stores = [kit.store, second_store(), second_store()]

    def add_up(store: Store) -> None:
        for _ in range(30):
            with store.write() as connection:
                before = connection.execute(select(jobs.c.snoozes)).scalar_one()
                connection.execute(jobs.update().values(snoozes=before + 1))

    assert together(*[lambda store=store: add_up(store) for store in stores]) == [None] * 3
    assert kit.row(id_).snoozes == 90


@ONLY_SQLITE
def test_a_write_transaction_holds_the_file_from_its_beginning(
    store: Store, store_url: str
) -> None:
    with store.write(), closing(sqlite3.connect(file_of(store_url), timeout=0)) as other:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


@ONLY_SQLITE
def test_a_read_transaction_holds_up_no_writer(store: Store, kit: StoreKit) -> None:
    with store.read() as connection:
        before = connection.execute(select(jobs.c.id)).all()
        kit.add()
        assert connection.execute(select(jobs.c.id)).all() == before
    assert kit.jobs.count(JobFilter()) == 1


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
    monkeypatch.setattr(sqlite_write_lock, "ACQUIRE_TIMEOUT", 60.0)
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
    monkeypatch.setattr(sqlite_write_lock, "ACQUIRE_TIMEOUT", 60.0)
    real_wait = sqlite_write_lock._LockThread.wait
    mine = WriteLock(str(lock))
    seen: list[tuple[bool, bool]] = []
    waiters: set[threading.Thread] = set()

    def take() -> None:
        for _ in range(3):
            with holder_of(lock) as child:

                def wait(waiter: sqlite_write_lock._LockThread) -> bool:
                    child.kill()  # Not before somebody waits.
                    return real_wait(waiter)

                monkeypatch.setattr(sqlite_write_lock._LockThread, "wait", wait)
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
    monkeypatch.setattr(sqlite_write_lock, "ACQUIRE_TIMEOUT", 60.0)

    class Interrupted(Future[None]):
        def result(self, timeout: float | None = None) -> None:
            if granted:
                child.kill()
                super().result(timeout)
            raise KeyboardInterrupt

    mine = WriteLock(str(lock))
    with holder_of(lock) as child:
        with monkeypatch.context() as patched:
            patched.setattr(sqlite_write_lock, "Future", Interrupted)
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
    monkeypatch.setattr(sqlite_write_lock, "ACQUIRE_TIMEOUT", 60.0)
    with holder_of(lock) as child:
        child.kill()
        child.wait(30)
        with WriteLock(str(lock)).held() as held:
            assert held


def test_a_stopped_holder_delays_others_once_and_no_longer_afterwards(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_write_lock, "ACQUIRE_TIMEOUT", 0.05)
    waits = 0
    real_wait = sqlite_write_lock._LockThread.wait

    def counted_wait(waiter: sqlite_write_lock._LockThread) -> bool:
        nonlocal waits
        waits += 1
        return real_wait(waiter)

    monkeypatch.setattr(sqlite_write_lock._LockThread, "wait", counted_wait)
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


def test_who_waits_stays_in_the_queue_as_long_as_the_lock_changes_hands(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock it would poll for the file, against all who come and go with it."""
    monkeypatch.setattr(sqlite_write_lock, "ACQUIRE_TIMEOUT", 0.02)
    mine, waits = WriteLock(str(lock)), []
    with holder_of(lock) as child:
        with mine.held() as held:
            assert not held

        def taken_by_another() -> None:
            os.utime(lock, ns=(0, len(waits)))

        class Counted(Future[None]):
            def result(self, timeout: float | None = None) -> None:
                waits.append(self)
                taken_by_another()
                if len(waits) == 3:
                    child.kill()
                return super().result(60.0 if len(waits) == 3 else timeout)

        monkeypatch.setattr(sqlite_write_lock, "Future", Counted)
        taken_by_another()
        with mine.held() as held:
            assert held
    assert len(waits) == 3


def test_who_takes_the_lock_shows_it_to_those_who_wait_but_not_each_time(lock: Path) -> None:
    lock.touch()
    mine, signs = WriteLock(str(lock)), []
    for _ in range(2):
        os.utime(lock, ns=(0, 0))
        with mine.held():
            signs.append(lock.stat().st_mtime_ns > 0)
    assert signs == [True, False]


@ONLY_SQLITE
def test_a_stopped_process_with_the_kernel_lock_does_not_stop_writers(
    kit: StoreKit, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_write_lock, "ACQUIRE_TIMEOUT", 0.05)
    kit.add()
    with holder_of(Path(f"{file_of(store_url)}-jobqueue-lock")) as child:
        child.send_signal(signal.SIGSTOP)
        kit.add_many(3)
        assert kit.jobs.count(JobFilter()) == 4
        # A statement alone would not queue again for the lock.
        assert kit.store.execute_autocommit("DELETE FROM jobqueue_jobs", {}) is None
        assert kit.jobs.count(JobFilter()) == 4


@ONLY_SQLITE
def test_who_has_given_the_kernel_lock_up_queues_again_while_it_waits_for_the_file(
    kit: StoreKit, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_write_lock, "ACQUIRE_TIMEOUT", 0.05)
    monkeypatch.setattr(sqlite, "TRY_WITHOUT_LOCK", 50)
    file, real_take, taken = file_of(store_url), WriteLock.take_again, []
    lock = Path(f"{file}-jobqueue-lock")
    with closing(sqlite3.connect(file, isolation_level=None)) as foreign, holder_of(lock) as child:

        def take_again(mine: WriteLock) -> bool:
            if taken:  # The second time: the holder was not stopped for ever.
                os.utime(lock, ns=(0, 0))
                child.kill()
                monkeypatch.setattr(sqlite_write_lock, "ACQUIRE_TIMEOUT", 60.0)
            taken.append(real_take(mine))
            if taken[-1]:
                foreign.execute("ROLLBACK")
            return taken[-1]

        monkeypatch.setattr(WriteLock, "take_again", take_again)
        foreign.execute("BEGIN IMMEDIATE")
        with kit.store.write() as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() == 10_000
            monkeypatch.setattr(sqlite_write_lock, "ACQUIRE_TIMEOUT", 0.05)
            assert WriteLock(str(lock)).take() is None
    assert taken == [False, True]
    kit.add()


@ONLY_SQLITE
def test_the_lock_file_stays(kit: StoreKit, store_url: str) -> None:
    kit.add()
    kit.store.close()
    assert Path(f"{file_of(store_url)}-jobqueue-lock").exists()


def test_a_closed_store_may_be_used_again(kit: StoreKit) -> None:
    kit.store.close()
    kit.add()


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
    before = lock_threads()

    def waits() -> bool:
        return bool(lock_threads() - before)

    store = Store(f"sqlite:///{tmp_path / 'jobqueue.db'}")
    store.require_schema()
    taken = threading.Event()

    def hold() -> None:
        with WriteLock(f"{tmp_path / 'jobqueue.db'}-jobqueue-lock").held():
            taken.set()
            wait_until(waits)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(60)
    with store.write():
        assert waits()
    holder.join()
    store.close()
    assert not waits()
