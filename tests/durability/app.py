"""The app of the durability tests, and the processes that run it: workers, and enqueuers that are to die.

What handlers do is written down outside of the database: a line per effect in a file that is only ever appended to, so that the
tests can hold what happened against what the database says. A handler waits at a gate, which a test opens by making a file.
"""

import argparse
import ctypes
import fcntl
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from faults import lose_answers, lose_answers_alone, step_clocks, tune, watch_for_stalls
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, insert
from sqlalchemy.orm import Session

from jobqueue import JobQueue, Snooze, current_job

LOOK = 0.01  # seconds between looks at a gate
METADATA = MetaData()
PAYMENTS = Table("payments", METADATA, Column("job", Integer), Column("fence", Integer))
"""Effects that live in the jobs' own database. No key is unique, so that a second payment would be seen."""


class Effect(NamedTuple):
    """One line: what a handler did, in whose name, when on a clock that no one steps."""

    kind: str
    job: int
    attempt: int
    fence: int
    pid: int
    at: float
    cancelled: bool


class Effects:
    """The file of effects; a line is one write() at the end of the file, so a kill -9 tears none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._known: list[Effect] = []
        self._offset = 0

    def write(self, kind: str) -> None:
        job = current_job()
        effect = Effect(
            kind, job.id, job.attempt, job.fence, os.getpid(), boottime(), job.cancelled
        )
        os.write(self._file, json.dumps(effect).encode() + b"\n")

    def read(
        self, kind: str | None = None, *, job: int | None = None, pid: int | None = None
    ) -> list[Effect]:
        # A line that is being written may be seen in part.
        while b"\n" in (new := os.pread(self._file, 1 << 20, self._offset)):
            new = new[: new.rindex(b"\n") + 1]
            self._known += (Effect(*json.loads(line)) for line in new.splitlines())
            self._offset += len(new)
        return [
            effect
            for effect in self._known
            if kind in (None, effect.kind)
            and job in (None, effect.job)
            and pid in (None, effect.pid)
        ]

    def open_gate(self, name: str, pid: int | str = "all") -> None:
        """Let the handlers through that wait there, in one process or in all."""
        self.path.with_name(f"gate-{name}-{pid}").touch()

    def pass_gate(self, name: str) -> None:
        gates = [self.path.with_name(f"gate-{name}-{pid}") for pid in ("all", os.getpid())]
        wait_for(lambda: any(gate.exists() for gate in gates))


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wait_for(predicate: Any) -> None:
    pause = threading.Event()
    while not predicate():
        pause.wait(LOOK)


def default_engine(jobs: JobQueue) -> Engine:
    """What an application has of its own: nothing is set but the URL."""
    url = jobs.store.url
    return create_engine(
        url.set(
            drivername=f"{url.get_backend_name()}{'+psycopg' * (not jobs.store.backend.single_writer)}"
        )
    )


def build(url: str, effects: Path) -> tuple[JobQueue, Effects]:
    """The queue with its tasks, the same in tests and in worker processes."""
    jobs, seen = JobQueue(url), Effects(effects)
    engine = default_engine(jobs)

    @jobs.task
    def work(seconds: float) -> int:
        seen.write("started")
        threading.Event().wait(seconds)
        seen.write("finished")
        return current_job().fence

    @jobs.task
    def nop() -> None: ...

    @jobs.task
    def pid() -> int:
        return os.getpid()

    @jobs.task
    def clock() -> float:
        return time.time()

    @jobs.task
    def hold(verb: str) -> int:
        """Waits at the gate of its verb; then its first run does that, and a later one succeeds."""
        job = current_job()
        seen.write("started")
        if verb == "progress" and job.fence > 1:
            job.progress(0.5, "mine")
        if verb == "watch" and job.fence == 1:
            wait_for(lambda: job.cancelled)
            seen.write("told")
        seen.pass_gate(verb)
        seen.write("ended")
        if job.fence > 1 or verb in ("finish", "watch"):
            return job.fence
        if verb == "fail":
            raise RuntimeError("stale")
        if verb == "snooze":
            raise Snooze(3600)
        if verb == "progress":
            job.progress(0.9, "stale")
            wait_for(lambda: job._attempt.reported is None)  # The heartbeat has taken it.
            seen.write("reported")
        if verb == "finish_within":
            pay_in(engine, seen)
        return job.fence

    @jobs.task
    def pay(dies: str = "") -> None:
        """Pays in the jobs' database, exactly once; its first run is killed at the given point."""
        with Session(engine) as session, session.begin():
            _die(dies, "before the effect")
            session.execute(
                insert(PAYMENTS), {"job": current_job().id, "fence": current_job().fence}
            )
            _die(dies, "after the effect")
            current_job().finish_within(session, "paid")
            _die(dies, "after finish_within")
        _die(dies, "after the commit")

    @jobs.task
    def seize(seconds: float) -> int:
        """Its first run keeps the interpreter's lock: no other thread of the process does anything."""
        seen.write("started")
        if current_job().fence == 1:
            ctypes.PyDLL(None).poll(0, 0, int(1000 * seconds))
        seen.write("finished")
        return current_job().fence

    @jobs.task
    def fork() -> int:
        """Forks, and leaves the child at once."""
        child = os.fork()
        if child == 0:
            os._exit(0)
        _, status = os.waitpid(child, 0)
        return status

    return jobs, seen


def pay_in(engine: Engine, seen: Effects) -> None:
    try:
        with Session(engine) as session, session.begin():
            session.execute(
                insert(PAYMENTS), {"job": current_job().id, "fence": current_job().fence}
            )
            current_job().finish_within(session)
    except Exception as error:
        seen.write(type(error).__name__)
        raise


def _die(chosen: str, here: str) -> None:
    if chosen == here and current_job().fence == 1:
        os.kill(os.getpid(), signal.SIGKILL)


# Processes


def run_worker(options: argparse.Namespace) -> int:
    """A worker as the command line runs it: the first signal asks it to stop, the second to stop waiting."""
    watch_for_stalls()
    if options.tune:
        tune(options.tune)
    if options.clock:
        step_clocks(options.clock)
    settings = {
        name: value
        for name in ("lease", "concurrency", "poll", "shutdown_timeout", "queues", "drain", "name")
        if (value := getattr(options, name)) is not None
    }
    jobs, _ = build(options.url, options.effects)
    worker = jobs.worker(**settings)
    if options.lossy:
        lose_answers(worker._assembly.store.engine, options.lossy)
        lose_answers_alone(worker._assembly.store, options.lossy)

    def told(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: worker.abort())
        worker.request_stop()

    signal.signal(signal.SIGTERM, told)
    worker.start()
    options.ready.touch()
    worker.wait()
    in_order = worker.stop()
    jobs.close()
    return 0 if in_order else 1


def run_enqueuer(options: argparse.Namespace) -> int:
    """Enqueues one job under an idempotency key and is killed right before or after the commit."""
    jobs, _ = build(options.url, options.effects)
    dialect = jobs.store.engine.dialect
    jobs._jobs.limits.limits_of([], None)  # What is read once a second is read: no commit of that.
    commit = dialect.do_commit

    def dying(connection: Any) -> None:
        if options.dies == "after":
            commit(connection)
        os.kill(os.getpid(), signal.SIGKILL)

    dialect.do_commit = dying
    jobs.registry["nop"].options(unique_key="once", unique_until="deleted").enqueue()
    return 1


def hold_lock(options: argparse.Namespace) -> int:
    """Takes the kernel lock of a SQLite file, and stops as with Ctrl-Z."""
    file = os.open(options.path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    options.ready.touch()
    os.kill(os.getpid(), signal.SIGSTOP)
    return 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("worker", "enqueuer", "lock"))
    parser.add_argument("--url")
    parser.add_argument("--effects", type=Path)
    parser.add_argument("--path", type=Path)
    parser.add_argument("--ready", type=Path)
    parser.add_argument("--dies")
    parser.add_argument("--clock", type=Path)
    parser.add_argument("--tune")
    for name in ("lease", "poll", "shutdown-timeout"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--concurrency", type=int)
    parser.add_argument("--drain", action="store_true")
    parser.add_argument("--queues")
    parser.add_argument("--name")
    parser.add_argument("--lossy", type=int)
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(relativeCreated)d %(threadName)s %(levelname)s %(message)s"
    )
    return {"worker": run_worker, "enqueuer": run_enqueuer, "lock": hold_lock}[options.role](
        options
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
