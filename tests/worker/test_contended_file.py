"""How a worker leaves room to others that write the same SQLite file."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from jobqueue import JobQueue
from jobqueue.worker import claim_and_complete
from tests.worker.conftest import Stepped


@pytest.fixture
def work(jobs: JobQueue) -> Any:
    @jobs.task
    def work() -> None: ...

    return work


@pytest.mark.databases("sqlite")
def test_a_worker_that_was_stopped_in_a_transaction_does_not_rest_as_long_again(
    jobs: JobQueue, work: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = stepped(jobs)
    store, turn = worker.store, worker.parts.claimer
    write, jump, rests = store.write, [0.0], []
    present = claim_and_complete.time.monotonic()

    @contextmanager
    def suspended() -> Any:
        with write() as connection:
            yield connection
            jump[0] += 20.0

    monkeypatch.setattr(claim_and_complete.time, "monotonic", lambda: present + jump[0])
    monkeypatch.setattr(store, "write", suspended)
    monkeypatch.setattr(turn._stopping, "wait", rests.append)
    for _ in range(2):
        work.enqueue()
        worker.claim()
    assert rests and max(rests) < 0.2


@pytest.mark.databases("sqlite")
def test_a_writer_that_knows_nothing_of_turns_is_noticed_and_given_room(
    url: str, jobs: JobQueue, work: Any, stepped: Stepped
) -> None:
    """Any that holds the file when a turn begins."""
    worker = stepped(jobs)
    inflight, backend = worker.inflight, worker.store.backend
    for _ in range(20):  # The worker may come too late to meet it.
        work.enqueue()
        with sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with ThreadPoolExecutor(1) as pool:
                claimed = pool.submit(worker.claim)
                threading.Event().wait(0.05)
                assert not claimed.done()
                other.execute("COMMIT")
                claimed.result(30)
        other.close()
        if inflight.contention.foreign_writer_seen:
            break
    assert inflight.contention.batch_max(backend) == backend.batch_max_shared


@pytest.mark.databases("sqlite")
def test_a_worker_that_waits_for_the_processor_does_not_think_it_met_a_writer(
    jobs: JobQueue, work: Any, stepped: Stepped
) -> None:
    worker = stepped(jobs)
    slow: list[object] = []

    def begin_slowly(connection: object) -> None:
        slow.append(connection)
        threading.Event().wait(0.02)

    event.listen(worker.store.engine, "begin", begin_slowly)
    for _ in range(3):
        work.enqueue()
        worker.claim()
    assert slow and not worker.inflight.contention.foreign_writer_seen
