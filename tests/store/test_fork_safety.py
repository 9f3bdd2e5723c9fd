"""Processes forked while threads of ours are in transactions: both sides go on, on both databases."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import text

from jobqueue import JobQueue
from jobqueue.records import JobFilter
from jobqueue.store import fork_safety

LONG = 60.0  # seconds, for what takes less than one

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

forking = threading.Event()
os.register_at_fork(before=forking.set)  # Before ours, which was registered earlier.


def forked(work: Callable[[], object]) -> int:
    """The exit code of a child that does it: 0, or 1 if it raised, which it says."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            os.write(2, f"child: {error!r}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def jobs(url: str) -> Iterator[JobQueue]:
    forking.clear()
    with JobQueue(url) as queue:
        yield queue


@pytest.fixture
def add(jobs: JobQueue) -> Any:
    @jobs.task
    def add(x: int, y: int) -> int:
        return x + y

    add.enqueue(0, 0)
    return add


class Writer:
    """A thread that stays in a write transaction until a fork has begun, and as long again."""

    def __init__(self, queue: JobQueue, rest: float) -> None:
        self._queue, self._rest = queue, rest
        self.inside = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._queue.store.write() as connection:
            connection.execute(text("UPDATE jobqueue_jobs SET priority = 1"))
            self.inside.set()
            forking.wait(LONG)
            threading.Event().wait(self._rest)


@contextmanager
def writing(queue: JobQueue, rest: float) -> Iterator[None]:
    writer = Writer(queue, rest)
    writer.thread.start()
    assert writer.inside.wait(LONG)
    yield
    writer.thread.join()


def test_a_child_forked_beside_a_thread_that_writes_can_write(jobs: JobQueue, add: Any) -> None:
    with writing(jobs, 0.2):
        assert forked(lambda: add.enqueue(1, 1)) == 0
    assert add.enqueue(1, 1).created
    assert len(list(jobs.list())) == 3


def test_a_fork_waits_for_a_transaction_for_a_bounded_time(jobs: JobQueue, add: Any) -> None:
    with writing(jobs, 3 * fork_safety.FORK_WAIT_MAX):
        before = monotonic()
        assert forked(lambda: None) == 0
        took = monotonic() - before
    assert took < 9 * fork_safety.FORK_WAIT_MAX
    assert add.enqueue(1, 1).created


def test_a_fork_within_a_transaction_of_the_same_thread_does_not_wait_for_it(
    jobs: JobQueue, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_safety, "FORK_WAIT_MAX", LONG)
    with jobs.store.write() as connection:
        connection.execute(text("UPDATE jobqueue_jobs SET priority = 1"))
        before = monotonic()
        assert forked(lambda: None) == 0
        assert monotonic() - before < LONG / 2
    thread = threading.Thread(target=add.enqueue, args=(1, 1), daemon=True)
    thread.start()
    thread.join(LONG)
    assert len(list(jobs.list())) == 2


def test_children_forked_while_a_worker_and_a_producer_are_at_work_enqueue(
    jobs: JobQueue, add: Any
) -> None:
    stop = threading.Event()

    def produce() -> None:
        while not stop.is_set():
            add.enqueue(1, 1)

    producer = threading.Thread(target=produce)
    producer.start()
    with jobs.worker(concurrency=2):
        assert [forked(lambda: add.enqueue(2, 2)) for _ in range(10)] == [0] * 10
        stop.set()
        producer.join()
        assert add.enqueue(3, 3).result(timeout=LONG) == 6


def test_the_threads_of_a_child_enqueue_too(jobs: JobQueue, add: Any) -> None:
    def work() -> None:
        threads = [threading.Thread(target=add.enqueue, args=(n, n), daemon=True) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        assert not any(thread.is_alive() for thread in threads)

    assert forked(work) == 0
    assert len(list(jobs.list())) == 4


def test_two_threads_that_fork_at_once_leave_the_gate_open(
    add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one does not get the gate in time, and may not take it from the first."""
    monkeypatch.setattr(fork_safety, "FORK_WAIT_MAX", 0.05)
    gate = fork_safety.gate
    gate.close()
    second = threading.Thread(target=lambda: (gate.close(), gate.open()))
    second.start()
    second.join(LONG)
    gate.open()
    other = threading.Thread(target=lambda: add.enqueue(1, 2))
    other.start()
    other.join(LONG)
    assert not other.is_alive()
    assert len([*add.enqueue(1, 2)._jobs.find(JobFilter())]) == 3


def test_a_thread_that_comes_during_a_fork_enters_after_it() -> None:
    gate = fork_safety.gate
    entered = threading.Event()

    def come() -> None:
        with gate:
            entered.set()

    gate.close()
    other = threading.Thread(target=come)
    other.start()
    came_during_it = entered.wait(0.05)
    gate.open()
    other.join(LONG)
    assert (came_during_it, entered.is_set()) == (False, True)


def open_files(path: str) -> int:
    """How many descriptors of this process lead to a file."""
    links = Path("/proc/self/fd").iterdir()
    return sum(1 for link in links if link.exists() and str(link.readlink()) == path)


@pytest.mark.databases("sqlite")
def test_a_connection_kept_for_single_statements_is_closed_with_the_queue(
    url: str, wait_until: Callable[..., Any]
) -> None:
    path = url.removeprefix("sqlite:///")
    with JobQueue(url) as queue, ThreadPoolExecutor(4) as threads:

        @queue.task
        def add(x: int, y: int) -> int:
            return x + y

        list(threads.map(lambda number: add.enqueue(number, 2), range(40)))
        pool: Any = queue.store.engine.pool
        wait_until(lambda: pool.checkedout() == 1)  # whatever the threads needed meanwhile
        assert open_files(path) > 0
    assert open_files(path) == 0


@pytest.mark.databases("sqlite")
def test_a_child_leaves_the_connection_kept_for_single_statements_to_its_parent(
    jobs: JobQueue, add: Any, wait_until: Callable[..., Any]
) -> None:
    pool: Any = jobs.store.engine.pool
    wait_until(lambda: pool.checkedout() == 1)

    def work() -> None:
        assert jobs.store.engine.pool is not pool
        add.enqueue(1, 1)
        assert pool.checkedout() == 1  # as when it was forked

    assert forked(work) == 0
    assert add.enqueue(2, 2).created
    wait_until(lambda: pool.checkedout() == 1)


def test_two_forks_at_once_take_turns(wait_until: Callable[..., Any]) -> None:
    gate = type(fork_safety.gate)()
    leave, inside = threading.Event(), threading.Event()

    def stay() -> None:
        with gate:
            inside.set()
            leave.wait(LONG)

    def fork() -> None:
        gate.close()
        gate.open()

    def start(target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        return thread

    threads = [start(stay)]
    assert inside.wait(LONG)
    threads += [start(fork), start(fork)]
    wait_until(lambda: len(gate._changed._waiters) == 2)  # type: ignore[attr-defined]
    leave.set()
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads)
    assert gate._changed.acquire(timeout=LONG)


def run(program: str) -> str:
    """What a program prints whose SIGINT is that of a new interpreter."""
    line = [sys.executable, "-c", "import signal\n" + program]
    return subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize(
    ("handler", "end"),
    [("signal.default_int_handler", "-2\n"), ("lambda *_: os.write(1, b'heard ')", "heard 0\n")],
)
def test_an_interrupt_waits_until_a_child_has_dropped_all_that_is_its_parents(
    handler: str, end: str
) -> None:
    program = f"""
import os
from jobqueue.store import fork_safety

class Holder:
    def after_fork_in_child(self):
        os.write(1, b"dropped ")
        os.kill(os.getpid(), signal.SIGINT)

holders = [Holder() for _ in range(3)]
for holder in holders:
    fork_safety.register(holder)
signal.signal(signal.SIGINT, {handler})
if (pid := os.fork()) == 0:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run(program) == 3 * "dropped " + end


def test_an_interrupt_that_comes_as_a_child_unblocks_it_ends_the_child() -> None:
    """It raised a KeyboardInterrupt in our hook, which Python ignores."""
    program = """
import os
from jobqueue import fork_guard

unblock = fork_guard._unblock

def unblock_and_interrupt():
    unblock()
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGINT)

parent, fork_guard._unblock = os.getpid(), unblock_and_interrupt
if (pid := os.fork()) == 0:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
fork_guard._unblock = unblock
if (pid := os.fork()) == 0:
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run(program) == "-2\n7\n"


def test_an_interrupt_that_another_thread_has_received_leaves_the_gate_open() -> None:
    """No mask of the thread that forks delays it: it breaks off the first hook that is Python code."""
    program = """
import _thread, logging, os, threading
os.register_at_fork(after_in_parent=_thread.interrupt_main)  # Python code of logging comes before.
from jobqueue.store.fork_safety import gate

if (pid := os.fork()) == 0:
    os._exit(0)
os.waitpid(pid, 0)
thread = threading.Thread(target=gate.__enter__, daemon=True)
thread.start()
thread.join(10)
print(thread.is_alive(), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
    assert run(program) == "False set()\n"


def test_an_interrupt_that_has_waited_for_a_fork_is_raised_behind_it() -> None:
    program = """
import os
from jobqueue import fork_guard

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

fork_guard.around(fork_guard.Hooks(interrupt, int, int))
for _ in range(2):
    pid = 0
    try:
        if (pid := os.fork()) == 0:
            os._exit(0)
        print("missed")
    except KeyboardInterrupt:
        print("interrupted")
"""
    assert run(program) == 2 * "interrupted\n"
