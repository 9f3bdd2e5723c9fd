"""The demo's course: enqueue, start workers, kill -9 one of them, wait for the end, verify."""

import os
import secrets
import socket
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from jobqueue.cli.demo.app import digest, is_slow, modules
from jobqueue.cli.demo.app import jobs as app
from jobqueue.cli.demo.output import Narration
from jobqueue.cli.demo.verify import Run, recount, verify
from jobqueue.errors import JobQueueError
from jobqueue.queue import JobQueue
from jobqueue.records import JobFilter, counted
from jobqueue.states import FINAL, State
from jobqueue.store import migrate
from jobqueue.store.jobs import Jobs
from jobqueue.supervisor.worker_process import spawn

WORKERS = 3
CONCURRENCY = 4
TIMEOUT = 90.0  # seconds for all jobs; a machine where they take longer has something wrong
POLL_INTERVAL = 0.02  # seconds
KILL_AFTER = 0.2  # of all jobs: the others have to last until a busy machine has seen it
STOP_TIMEOUT = 5.0  # seconds; no job takes longer than a fraction of one
KILL_TRIES = 200
SETTLE_SECONDS = 0.05
"""After a kill, for a statement that the worker has sent and the server still carries out."""


def perform(url: URL, folder: Path, narration: Narration) -> Run:
    """Run the demo on a database. Raises JobQueueError when it cannot be run to its end."""
    run = Run(url, f"demo-{secrets.token_hex(3)}", folder)
    migrate.upgrade(url)
    with app.elsewhere(url) as jobs:
        ids = _enqueue(run, jobs, narration)
        _work(run, jobs, ids, narration)
        narration.tell("proof", "every file is read again here, and compared with the database")
        run.proof = verify(recount(modules()), jobs, run.queue, run.killed)
    return run


def _enqueue(run: Run, jobs: JobQueue, narration: Narration) -> list[int]:
    names = modules()
    if not names:
        raise JobQueueError("this Python's standard library has no .py files to work on")
    task = digest.options(queue=run.queue)
    started = time.monotonic()
    handles = jobs.enqueue_many(task.call(name) for name in names)
    run.enqueued_in = time.monotonic() - started
    run.files, run.slow = len(names), sum(map(is_slow, names))
    count = counted(run.files, "job")
    each = "one for each module of Python's library"
    narration.tell("enqueued", f"{count} in {run.enqueued_in:.2f} s, {each}")
    return [job.id for job in handles]


def _work(run: Run, jobs: JobQueue, ids: list[int], narration: Narration) -> None:
    rows = Jobs(jobs.store)
    started = killed_at = time.monotonic()
    left: set[int] = set()
    with worker_processes(run) as workers:
        run.workers = [worker.name for worker in workers]
        pids = ", ".join(str(worker.pid) for worker in workers)
        narration.tell("workers", f"{WORKERS} processes: {pids}")
        with narration.progress(run.files) as advance:
            for done, id_ in enumerate(_as_they_end(run, rows, ids, workers), start=1):
                advance()
                if not run.killed and done >= run.files * KILL_AFTER:
                    pid = kill_one(run, workers, rows)
                    killed_at, left = time.monotonic(), set(run.held)
                    held = counted(len(left), "job")
                    narration.tell("kill -9", f"worker {pid}, while it held {held}", "red")
                if id_ in left:
                    left.remove(id_)
                    run.recovered_in = time.monotonic() - killed_at
        run.worked_in = time.monotonic() - started
    if run.recovered_in is not None:
        later = f"{run.recovered_in:.1f} s after the kill"
        narration.tell("again", f"the others had done its {held} {later}")


def _as_they_end(
    run: Run, rows: Jobs, ids: list[int], workers: list["WorkerProcess"]
) -> Iterator[int]:
    """Yield the id of each job when it has ended, for as long as the workers live."""
    left = dict.fromkeys(ids)
    until, pause = time.monotonic() + TIMEOUT, threading.Event()
    while left:
        states = rows.states(list(left))
        # A job that is missing will not end either: the verification reports it.
        for id_ in [id_ for id_ in left if states.get(id_) in (None, *FINAL)]:
            del left[id_]
            yield id_
        _check(run, workers)
        if left and time.monotonic() > until:
            counts = Counter(states[id_].value for id_ in left)
            shown = ", ".join(f"{count} {state}" for state, count in counts.items())
            raise JobQueueError(
                f"after {TIMEOUT:g} s {len(left):,} of {len(ids):,} jobs had not ended ({shown}),"
                f" such as job {min(left)}; the workers' logs are in {run.folder}"
            )
        pause.wait(POLL_INTERVAL)


@dataclass
class WorkerProcess:
    """One worker. It stops by itself when this process ends, and with it `control`."""

    process: "subprocess.Popen[bytes]"
    control: socket.socket
    log: Path

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def name(self) -> str:
        """The name in the database."""
        return f"{socket.gethostname()}-{self.pid}"


@contextmanager
def worker_processes(run: Run) -> Iterator[list[WorkerProcess]]:
    """Start workers on the queue of a run, and stop them; after an error they are killed."""
    workers: list[WorkerProcess] = []
    try:
        for number in range(1, WORKERS + 1):
            log = run.folder / f"worker-{number}.log"
            workers.append(_start(run, log))
        yield workers
    except BaseException:
        for worker in workers:
            worker.process.kill()
        raise
    finally:
        codes = _stop(workers)
        run.exit_codes = {name: code for name, code in codes.items() if name not in run.killed}


def _start(run: Run, log: Path) -> WorkerProcess:
    arguments = ["--app", "jobqueue.cli.demo.app:jobs", "-q", run.queue, "-c", str(CONCURRENCY)]
    environment = os.environ | {"JOBQUEUE_URL": run.url.render_as_string(hide_password=False)}
    with log.open("wb") as output:
        pipes = {"stdout": output, "stderr": subprocess.STDOUT}
        return WorkerProcess(*spawn(arguments, environment, **pipes), log)


def _stop(workers: list[WorkerProcess]) -> dict[str, int]:
    """Stop all; returns their exit codes by name."""
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        try:
            worker.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            worker.process.kill()
        worker.control.close()
    return {worker.name: worker.process.wait() for worker in workers}


def kill_one(run: Run, workers: list[WorkerProcess], rows: Jobs) -> int:
    """Kill -9 a worker that holds jobs; `run.held` are the ids that it left running.

    The one that holds the most, which may be the only one: the first to start may have claimed all.
    It may finish its jobs between the look and the kill: then another one is killed, too, as long
    as one is left. Returns its process id.
    """
    pause = threading.Event()
    for _ in range(KILL_TRIES):
        held = _held(run, rows)
        alive = [worker for worker in workers if worker.name not in run.killed]
        if len(alive) == 1:
            break
        victim = max(alive, key=lambda worker: len(held[worker.name]))
        if held[victim.name]:
            run.killed.append(victim.name)
            victim.process.kill()
            victim.process.wait()
            pause.wait(SETTLE_SECONDS)
            run.held = _lost(rows, held[victim.name], victim.name)
            if run.held:
                return victim.pid
        pause.wait(SETTLE_SECONDS)
    raise JobQueueError("no worker held a job when it was killed; run the demo again")


def _held(run: Run, rows: Jobs) -> dict[str | None, list[int]]:
    """The ids of running jobs by worker."""
    held: dict[str | None, list[int]] = defaultdict(list)
    for record in rows.find(JobFilter(queue=run.queue, state=State.RUNNING)):
        held[record.worker].append(record.id)
    return held


def _lost(rows: Jobs, held: list[int], worker: str) -> list[int]:
    """Those of the ids that a killed worker left running, rescued by a reaper since or not."""
    return [
        record.id
        for record in rows.find(JobFilter(ids=tuple(held)))
        if record.crashes or (record.state is State.RUNNING and record.worker == worker)
    ]


def _check(run: Run, workers: list[WorkerProcess]) -> None:
    """Raise JobQueueError, with the end of its log, if a worker died that was not killed."""
    for worker in workers:
        code = worker.process.poll()
        if code is not None and worker.name not in run.killed:
            lines = worker.log.read_text("utf-8", "replace").strip().splitlines()
            end = lines[-1][:300] if lines else "it said nothing"
            raise JobQueueError(
                f"worker {worker.pid} died with exit code {code}: {end} (all of it: {worker.log})"
            )
