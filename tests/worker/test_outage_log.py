"""What a worker logs while the database is unavailable: one line when it begins, one when it is over; other failures as ever."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from jobqueue import JobQueue
from jobqueue.errors import DatabaseReplaced
from jobqueue.store.dialects import sqlite
from jobqueue.worker import outage as outage_module
from jobqueue.worker.outage import REPEAT_LOG, Outage
from jobqueue.worker.service_thread import Service

AWAY = OperationalError(None, None, Exception("connection refused"))


# A worker at work


@pytest.fixture
def url(url: str, backend_name: str, request: pytest.FixtureRequest) -> str:
    """As everywhere, but on Postgres in a server that may be stopped."""
    return request.getfixturevalue("own_postgres").url if backend_name == "postgres" else url


@pytest.fixture
def outage(
    url: str, backend_name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], AbstractContextManager[None]]:
    """A context in which nobody can write to the database."""
    monkeypatch.setattr(sqlite, "SET_BUSY_TIMEOUT", "PRAGMA busy_timeout=20")

    @contextmanager
    def locked() -> Iterator[None]:
        engine = create_engine(url)
        with engine.connect() as connection:
            connection.execute(text("BEGIN IMMEDIATE"))
            yield
            connection.rollback()
        engine.dispose()

    @contextmanager
    def stopped() -> Iterator[None]:
        server = request.getfixturevalue("own_postgres")
        server.stop("immediate")
        yield
        server.start()

    return locked if backend_name == "sqlite" else stopped


def test_an_outage_is_one_line_when_it_begins_and_one_when_it_is_over(
    jobs: JobQueue,
    backend_name: str,
    outage: Callable[[], AbstractContextManager[None]],
    lines: Callable[..., list[str]],
    wait_until: Callable[..., Any],
) -> None:
    gates = [threading.Event(), threading.Event()]

    @jobs.task
    def hold(place: int) -> None:
        gates[place].wait(60)

    with jobs.worker(lease=2, stats_interval=None) as worker:
        services = worker.health.services
        handles = [hold.enqueue(place) for place in range(2)]
        wait_until(lambda: worker.running == 2)
        with outage():
            gates[0].set()  # Its outcome cannot be written.
            wait_until(lambda: sum(service.failing for service in services) >= 2)
            wait_until(lambda: lines(logging.WARNING))
        wait_until(lambda: lines(logging.INFO, "available again"))
        gates[1].set()
        for handle in handles:
            handle.result(timeout=60)
    said = [line for line in lines(logging.INFO) if "available" in line or "fail" in line]
    assert len(said) == 2
    assert said[0].startswith("the database is unavailable (")
    locked = ": OperationalError: database is locked, by a write transaction of another program): "
    assert (locked in said[0]) == (backend_name == "sqlite")
    assert said[0].endswith(
        "): this worker claims nothing and tries again; jobs that it runs go on, and their "
        "outcomes are kept"
    )
    assert said[1].startswith("the database is available again, after ")
    assert lines(logging.WARNING) == said[:1]


# Which errors are an outage


def test_a_statement_that_is_wrong_is_not_an_outage(jobs: JobQueue) -> None:
    store = jobs.store
    with pytest.raises(DBAPIError) as wrong, store.read() as connection:
        connection.execute(text("SELECT * FROM nowhere"))
    assert not store.backend.is_unavailable(wrong.value)
    assert not store.backend.is_unavailable(ValueError("no"))


@pytest.mark.databases("postgres")
@pytest.mark.parametrize(
    ("code", "is_outage"),
    [("08006", True), ("25006", True), ("53100", True), ("57P03", True)]
    + [("40P01", False), ("42P01", False), ("55P03", False), ("57014", False)],
)
def test_what_a_server_says_decides_whether_it_is_an_outage(
    jobs: JobQueue, code: str, is_outage: bool
) -> None:
    error = Exception("no")
    error.sqlstate = code  # type: ignore[attr-defined]
    assert jobs.store.backend.is_unavailable(OperationalError(None, None, error)) == is_outage


# Its begin and its end


class Flaky(Service):
    """Fails with the errors that it is given."""

    def __init__(self, name: str, outage: Outage) -> None:
        super().__init__(name)
        self.outage = outage
        self.error: Exception | None = None

    def tick(self) -> float:
        if self.error is not None:
            raise self.error
        return 1.0


class Parts:
    """Two services, and the clock and the heartbeat of their worker."""

    def __init__(self) -> None:
        self.present = self.beat = 1000.0
        self.outage = Outage(lambda error: isinstance(error, OperationalError), lambda: self.beat)
        self.claimer, self.reaper = (Flaky(name, self.outage) for name in ("claimer", "reaper"))

    def round(self, service: Flaky, error: Exception | None = None) -> None:
        self.present += 1
        service.error = error
        service.round()

    def beats(self) -> None:
        self.present += 1
        self.beat = self.present


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    made = Parts()
    monkeypatch.setattr(outage_module, "boottime", lambda: made.present)
    return made


BEGAN = (
    "the database is unavailable (claimer: OperationalError: connection refused): this worker "
    "claims nothing and tries again; jobs that it runs go on, and their outcomes are kept"
)
AGAIN = "the database is available again, after {} s"


def test_it_is_over_when_every_service_works_and_a_heartbeat_has_landed(
    parts: Parts, lines: Callable[..., list[str]]
) -> None:
    parts.round(parts.claimer, AWAY)
    parts.round(parts.reaper, AWAY)
    parts.round(parts.claimer)
    parts.round(parts.reaper)  # A round that asked nothing of the database.
    assert parts.outage.is_on
    parts.round(parts.reaper, AWAY)
    parts.beats()
    parts.round(parts.claimer)
    assert parts.outage.is_on
    parts.round(parts.reaper)
    assert not parts.outage.is_on
    assert lines(logging.INFO) == [BEGAN, AGAIN.format(7)]


def test_one_round_that_loses_its_connection_is_no_outage(
    parts: Parts, lines: Callable[..., list[str]]
) -> None:
    for _ in range(2):  # The second one is too soon after the first to be logged.
        parts.round(parts.claimer, AWAY)
        parts.beats()
        parts.round(parts.claimer)
        assert not parts.outage.is_on
    once = "claimer: failed once, and works again: OperationalError: connection refused"
    assert lines(logging.INFO) == [once]
    parts.present += REPEAT_LOG
    parts.round(parts.claimer)
    assert lines(logging.INFO) == [once, once]
    assert not parts.outage.listens


def test_an_outage_that_is_over_before_its_line_is_written_has_both_lines(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, lines: Callable[..., list[str]]
) -> None:
    """Another thread ends it as soon as the one that logs it lets go of the lock."""
    parts.round(parts.claimer, AWAY)
    ending = [parts.claimer]

    class Lock:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            if ending and parts.outage._is_logged:
                parts.beats()
                parts.outage.worked(ending.pop().name)

    monkeypatch.setattr(parts.outage, "_lock", Lock())
    parts.round(parts.claimer, AWAY)
    assert sorted(lines(logging.INFO)) == sorted([AGAIN.format(2), BEGAN])


def test_another_failure_is_logged_in_an_outage_too(
    parts: Parts, lines: Callable[..., list[str]]
) -> None:
    parts.round(parts.claimer, AWAY)
    parts.round(parts.reaper, AWAY)
    parts.round(parts.reaper, TypeError("a mistake"))
    parts.round(parts.reaper, TypeError("a mistake"))
    parts.beats()
    parts.round(parts.claimer)
    assert lines(logging.INFO) == [
        BEGAN,
        "reaper: failed 2 times, retrying: TypeError: a mistake",
        AGAIN.format(5),
    ]


def test_one_that_begins_soon_after_the_last_is_logged_if_it_goes_on(
    parts: Parts, lines: Callable[..., list[str]]
) -> None:
    for _ in range(5):
        parts.round(parts.claimer, AWAY)
        parts.round(parts.claimer, AWAY)
        parts.beats()
        parts.round(parts.claimer)
    assert len(lines(logging.INFO)) == 2
    parts.round(parts.claimer, AWAY)
    parts.present += REPEAT_LOG
    parts.round(parts.claimer, AWAY)
    assert lines(logging.WARNING) == [BEGAN, BEGAN]


def test_the_line_that_follows_names_what_failed_then_and_not_a_later_outage(
    parts: Parts, lines: Callable[..., list[str]]
) -> None:
    gone = OperationalError(None, None, Exception("server closed the connection"))
    for error in (AWAY, gone):
        parts.round(parts.claimer, error)
        parts.beats()
        parts.round(parts.claimer)
    parts.present += REPEAT_LOG - 5  # It goes on until a line may be written.
    for _ in range(5):
        parts.round(parts.reaper, AWAY)
    parts.beats()
    parts.round(parts.reaper)
    parts.present += REPEAT_LOG
    parts.round(parts.claimer)
    *_, last = lines(logging.INFO)
    assert (
        last
        == "claimer: failed once, and works again: OperationalError: server closed the connection"
    )


@pytest.mark.parametrize(("failures", "level"), [(1, logging.INFO), (2, logging.WARNING)])
def test_those_that_were_too_soon_to_be_logged_are_counted_in_one_line_later(
    parts: Parts, lines: Callable[..., list[str]], failures: int, level: int
) -> None:
    for number in (2, failures, failures):
        for _ in range(number):
            parts.round(parts.claimer, AWAY)
        parts.beats()
        parts.round(parts.claimer)
    assert lines(logging.INFO) == [BEGAN, AGAIN.format(3)]
    parts.present += REPEAT_LOG
    for _ in range(2):
        parts.round(parts.reaper)
    counted = (
        "the database failed 2 more times in the last {} s, and works again (the last: claimer: "
        "OperationalError: connection refused)"
    )
    seconds = REPEAT_LOG + 2 * (failures + 2)
    assert lines(level)[-1] == counted.format(f"{seconds:g}")
    assert len(lines(logging.INFO)) == 3


def test_a_file_that_was_replaced_is_left_to_the_heartbeat_which_stops_the_worker(
    parts: Parts, lines: Callable[..., list[str]]
) -> None:
    parts.round(parts.claimer, DatabaseReplaced("gone"))
    assert parts.outage.is_on  # So that the heartbeat looks at once.
    assert lines(logging.INFO) == []


def test_a_stop_in_an_outage_logs_nothing_more(
    parts: Parts, lines: Callable[..., list[str]]
) -> None:
    parts.round(parts.claimer, AWAY)
    parts.reaper.stop()
    parts.round(parts.reaper, AWAY)
    assert lines(logging.INFO) == [BEGAN]
