"""Tasks for tests of child processes. A child imports this module anew, and finds its database and its folder in the environment."""

import functools
import gc
import itertools
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert
from sqlalchemy.orm import Session

from jobqueue import Cancel, JobQueue, Retry, Snooze, current_job, fixed

jobs = JobQueue(os.environ["ISOLATED_URL"])
FOLDER = Path(os.environ["ISOLATED_FOLDER"])
PAYMENTS = Table("payments", MetaData(), Column("job", Integer), Column("fence", Integer))


def process(**options: Any) -> Any:
    return jobs.task(isolation="process", backoff=fixed(0.05), **options)


def note(what: str, text: object = "") -> None:
    """One line in a file; a write at its end, so that a kill tears none."""
    with (FOLDER / what).open("a") as file:
        file.write(f"{text}\n")


def pass_gate(name: str) -> None:
    pause = threading.Event()
    while not (FOLDER / f"gate-{name}").exists():
        pause.wait(0.01)


@jobs.use
def middleware(context: Any, run: Any) -> Any:
    if context.task == "pid":
        note("middleware", os.getpid())
    return run()


@process()
def pid() -> int:
    return os.getpid()


@process()
def echo(value: dict[str, int]) -> dict[str, int]:
    return value


@process(max_attempts=7, timeout=60)
def facts() -> dict[str, object]:
    job = current_job()
    job.check()
    return {
        "id": job.id,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "fence": job.fence,
        "remaining": job.remaining(),
        "deadline": job.deadline.isoformat() if job.deadline else None,
        "cancelled": job.cancelled,
        "headers": job.headers,
    }


@process()
def signals(what: str) -> None:
    if current_job().attempt == 1 and what == "snooze":
        raise Snooze(3600, reason="later")
    if what == "retry":
        raise Retry(after=1800)
    if what == "cancel":
        raise Cancel("no use")
    if what == "exit":
        raise SystemExit(3)
    raise ValueError("no good")


@process()
def reports() -> None:
    current_job().log.warning("half done")
    logging.getLogger("jobqueue.app").warning("so the app says")
    current_job().progress(0.5, "half")
    pass_gate("reports")
    current_job().progress(1.0, "all")


@process(max_attempts=2)
def sleeps() -> None:
    note("pids", os.getpid())
    note("began")
    try:
        time.sleep(600)
    finally:
        note("cleaned up")


@process(max_attempts=1)
def stubborn() -> None:
    """Takes no notice of anything that can be raised in it."""
    note("pids", os.getpid())
    while True:
        try:
            note("began")
            time.sleep(600)
        except BaseException:
            note("raised")


@process(max_attempts=1)
def holds_the_lock() -> None:
    """One call into C that keeps the interpreter's lock for ever."""
    note("pids", os.getpid())
    note("began")
    sum(itertools.repeat(0))


@process(max_attempts=1)
def forgets_to_await() -> object:
    async def forgotten() -> int:
        return 1

    return forgotten()


@process(max_attempts=1)
def closes_all_files(and_opens: bool) -> None:
    os.closerange(3, 1024)
    if and_opens:
        for number in range(16):
            (FOLDER / f"opened-{number}").touch()
            os.open(FOLDER / f"opened-{number}", os.O_RDWR)


@process(max_attempts=1)
def a_regular_expression() -> None:
    note("pids", os.getpid())
    note("began")
    re.match(r"(a+)+$", "a" * 60 + "b")


@process(max_attempts=1)
def parent_of_others() -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note("pids", other.pid)
    note("began")
    other.wait()


@process(max_attempts=1)
def leaves_others(then: str) -> None:
    """Has two processes that hold nothing of its own, and one has a program of its own."""
    if (other := os.fork()) == 0:
        time.sleep(600)
        os._exit(0)
    note("pids", other)
    note("pids", subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
    note("began")
    if then == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


@process(max_attempts=1)
def shouts() -> None:
    """Is nearly always in the midst of a message, which is more than fits into the pipe."""
    note("pids", os.getpid())
    logging.getLogger("jobqueue.app").warning("x" * 300_000)
    note("began")
    while True:
        logging.getLogger("jobqueue.app").warning("x" * 300_000)


@process(max_attempts=1)
def whispers() -> None:
    """Says half a message."""
    note("pids", os.getpid())
    (child,) = (one for one in gc.get_objects() if type(one).__name__ == "ChildMain")
    os.write(child._connection.fileno(), b"\0\1\0\0{")
    note("began")
    time.sleep(600)


@process(max_attempts=1)
def babbles() -> None:
    """Says what is no message."""
    note("pids", os.getpid())
    (child,) = (one for one in gc.get_objects() if type(one).__name__ == "ChildMain")
    os.write(child._connection.fileno(), b'{"log": 1}')
    time.sleep(600)


@process(max_attempts=1)
def forks() -> int:
    """Has a process that says what it has to say, and comes back from the handler as well."""
    if (other := os.fork()) == 0:
        logging.getLogger("jobqueue.app").warning("not for the worker")
        return -1
    return os.waitstatus_to_exitcode(os.waitpid(other, 0)[1])


@process()
def waits_for_cancel() -> str:
    note("began")
    job, pause = current_job(), threading.Event()
    while not job.cancelled:
        pause.wait(0.01)
    note("told")
    return "ended by itself"


@process(max_attempts=5)
def dies(how: str) -> None:
    note("died", os.getpid())
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


@process(max_attempts=5)
def dies_twice() -> str:
    note("dies twice")
    if len((FOLDER / "dies twice").read_text().splitlines()) <= 2:
        os._exit(3)
    return "alive"


@process(max_attempts=1)
def eats() -> None:
    """Eats memory up to a limit of its own."""
    resource.setrlimit(resource.RLIMIT_DATA, (600_000_000, 600_000_000))
    kept = []
    while True:
        kept.append(bytearray(20_000_000))


@process(max_attempts=1)
def eats_and_dies() -> None:
    kept = bytearray(300_000_000)
    kept[::4096] = b"x" * len(kept[::4096])
    os.kill(os.getpid(), signal.SIGKILL)


@process()
def pays(then: str = "") -> None:
    engine = create_engine(jobs.store.url.set(drivername=driver()))
    with Session(engine) as session, session.begin():
        session.execute(insert(PAYMENTS), {"job": current_job().id, "fence": current_job().fence})
        current_job().finish_within(session, "paid")
        if then == "dies before" and current_job().attempt == 1:
            os._exit(1)
    if then == "dies after":
        os._exit(1)


def driver() -> str:
    return "sqlite" if jobs.store.backend.single_writer else "postgresql+psycopg"


@process()
def enqueues() -> int:
    return pid.enqueue().id


@jobs.task(isolation="process")
async def acoroutine() -> int:
    return os.getpid()


def passing(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


@jobs.task(isolation="process", max_attempts=1)
@passing
async def wrapped_coroutine() -> int:
    return os.getpid()


# Tasks of threads


@jobs.task(max_attempts=4, backoff=fixed(0.05))
def poison() -> None:
    """Ends the process that it runs in, whatever that is."""
    note("poisoned", os.getpid())
    pass_gate("poison")
    os._exit(7)


@jobs.task(max_attempts=4)
def bystander() -> int:
    note("stood by", os.getpid())
    pass_gate("bystander")
    return os.getpid()


@jobs.task
def quick() -> int:
    return os.getpid()
