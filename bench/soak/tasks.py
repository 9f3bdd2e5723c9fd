"""The app of the soak: tasks that write down each beginning and each end outside of the database.

Its database is $JOBQUEUE_URL, its log $SOAK_LOG, and the worker's name $SOAK_WORKER; child processes inherit all three.
"""

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, insert
from sqlalchemy.orm import Session

from bench.soak.evidence import STALL, boottime
from jobqueue import JobQueue, current_job
from jobqueue.worker.handler.context import running_attempt
from jobqueue.options import fixed

jobs = JobQueue()
effects = Table("soak_effects", MetaData(), Column("number", Integer), Column("fence", Integer))
"""Effects in the jobs' own database. No key is unique, so that a second one would be seen."""

TICK = 0.05  # seconds


class Planned(Exception):
    """An error that a job is to have."""


@cache
def log_file() -> int:
    return os.open(os.environ["SOAK_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def write(*line: object) -> None:
    """Append a line by one write(): a kill tears none."""
    os.write(log_file(), json.dumps(line).encode() + b"\n")


@contextmanager
def written(number: int) -> Iterator[None]:
    """Write down that this run begins, and how it ends."""
    job, attempt = current_job(), running_attempt()
    assert attempt is not None
    claimed = attempt.claim.started_at.timestamp() - time.time() + boottime()
    me = (os.environ["SOAK_WORKER"], os.getpid())
    who = (number, job.id, job.attempt, job.fence, *me, round(claimed, 3))
    write("begin", *who, boottime())
    try:
        yield
    except BaseException:
        write("raised", *who, boottime())
        raise
    write("end", *who, boottime())


@cache
def plain_engine() -> Engine:
    """An engine as a user makes one: no setting of ours."""
    url = jobs.store.url
    driver = "postgresql+psycopg" if url.get_backend_name() == "postgresql" else "sqlite"
    return create_engine(url.set(drivername=driver))


@jobs.task
def work(number: int, seconds: float) -> int:
    with written(number):
        threading.Event().wait(seconds)
    return number


@jobs.task(max_attempts=1)
def once(number: int, seconds: float) -> int:
    with written(number):
        threading.Event().wait(seconds)
    return number


@jobs.task(backoff=fixed(0.5))
def flaky(number: int, errors: int) -> int:
    """Its first so many attempts error."""
    with written(number):
        if current_job().attempt <= errors:
            raise Planned
    return number


@jobs.task(isolation="process")
def apart(number: int, seconds: float) -> int:
    with written(number):
        threading.Event().wait(seconds)
    return number


@jobs.task
def pay(number: int, seconds: float) -> None:
    """An effect in the jobs' own database, with the job's success in one transaction."""
    with written(number):
        threading.Event().wait(seconds)
        with Session(plain_engine()) as session, session.begin():
            session.execute(insert(effects), {"number": number, "fence": current_job().fence})
            current_job().finish_within(session)


@jobs.task
async def fetch(number: int, seconds: float) -> int:
    with written(number):
        await asyncio.sleep(seconds)
    return number


def watch_for_stalls() -> None:
    """Write down each time that this process stood still: what a lease promises, it promises to those who run."""

    def watch() -> None:
        pause, before = threading.Event(), boottime()
        while True:
            pause.wait(TICK)
            present = boottime()
            if present - before > STALL:
                write("stall", os.environ["SOAK_WORKER"], before, present)
            before = present

    threading.Thread(target=watch, name="stalls", daemon=True).start()
