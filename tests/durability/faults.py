"""What tests do to a process of the app: clocks that step, commits that lose their answer, other constants; and what it says of itself."""

import importlib
import itertools
import json
import logging
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from jobqueue.store.database import Store

TICK = 0.05  # seconds
STALL = 0.4  # seconds without a tick that are worth a line; no lease in these tests is shorter than twice that

log = logging.getLogger("durability")


# Clocks that step


def stepped(file: Path) -> float:
    """Seconds that the test has stepped this process's wall clock by."""
    return float(file.read_text() or 0)


def step_clocks(file: Path) -> None:
    """Make Python's and SQLite's wall clock follow the file; no other clock has steps."""
    true_time = time.time
    time.time = lambda: true_time() + stepped(file)
    plain = sqlite3.connect(":memory:", check_same_thread=False)
    turn = threading.Lock()

    def strftime(pattern: str, *when: str) -> str:
        given = [
            part
            for moment in when
            for part in (
                (moment, f"{stepped(file):+.3f} seconds") if moment == "now" else (moment,)
            )
        ]
        with turn:
            marks = ", ".join("?" * (1 + len(given)))
            return plain.execute(f"SELECT strftime({marks})", (pattern, *given)).fetchone()[0]

    @event.listens_for(Engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.create_function("strftime", -1, strftime)


# Commits that lose their answer


def lose_answers(engine: Engine, every: int) -> None:
    """Break each so-and-so-many-th commit of an engine: in turns just before it, and just after it."""
    dialect, count = engine.dialect, itertools.count(1)
    commit = dialect.do_commit

    def broken(connection: Any) -> None:
        number = next(count)
        if number % every:
            return commit(connection)
        if number % (2 * every) == 0:
            commit(connection)
        if dialect.name == "sqlite":
            raise io_error()
        connection.driver_connection.close()
        return commit(connection)  # Raises what the driver says of a connection that is gone.

    dialect.do_commit = broken


def io_error() -> sqlite3.OperationalError:
    """What SQLite says of a disk that fails."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR"
    return error


def lose_answers_alone(store: Store, every: int) -> None:
    """The same for statements that are transactions of their own: not done, or done and not answered."""
    execute, count = store.execute_autocommit, itertools.count(1)

    def broken(*given: Any, **more: Any) -> Any:
        number = next(count)
        if number % every:
            return execute(*given, **more)
        if number % (2 * every):
            return None
        execute(*given, **more)
        lost = io_error() if store.backend.single_writer else Exception("connection lost")
        raise OperationalError("a statement alone", None, lost)

    store.execute_autocommit = broken


# Deaths


class Steps:
    """Kill this process at one of its steps: before each statement, before each commit and after it."""

    def __init__(self, engine: Engine) -> None:
        self._left = itertools.repeat(0)
        commit = engine.dialect.do_commit

        def committing(connection: Any) -> None:
            self._survive()
            commit(connection)
            self._survive()

        engine.dialect.do_commit = committing
        event.listen(Engine, "before_cursor_execute", self._survive)

    def die_at(self, step: int) -> None:
        """From now on; counted anew each time."""
        self._left = itertools.count(step, -1)

    def _survive(self, *_: object) -> None:
        if next(self._left) == 1:
            os.kill(os.getpid(), signal.SIGKILL)


# Constants that no setting changes


def tune(given: str) -> None:
    """Give constants of the worker's modules other values, such as {"upkeep.reaper.REAP_INTERVAL": 0.25}."""
    for path, value in json.loads(given).items():
        name, _, constant = path.rpartition(".")
        module = importlib.import_module(f"jobqueue.worker.{name}")
        assert hasattr(module, constant), path
        setattr(module, constant, value)


# Stalls


def watch_for_stalls() -> None:
    """Log how long this process stood still, each time: what a lease promises, it promises to those who run."""

    def watch() -> None:
        pause, before = threading.Event(), time.clock_gettime(time.CLOCK_BOOTTIME)
        while True:
            pause.wait(TICK)
            present = time.clock_gettime(time.CLOCK_BOOTTIME)
            if present - before > STALL:
                log.warning("stood still for %.1f s", present - before)
            before = present

    threading.Thread(target=watch, name="stalls", daemon=True).start()
