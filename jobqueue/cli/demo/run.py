"""The demo's course: enqueue, start workers, kill one half-way, wait for the end, prove."""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import URL

from jobqueue.cli.demo.output import Story
from jobqueue.cli.demo.queries import ask, questions
from jobqueue.cli.demo.result import Run
from jobqueue.cli.demo.tasks import lingers, modules, register
from jobqueue.cli.demo.verify import prove, recount
from jobqueue.cli.demo.workers import Crew
from jobqueue.errors import JobQueueError
from jobqueue.queue import JobQueue
from jobqueue.records import JobFilter, counted
from jobqueue.states import FINAL, State
from jobqueue.store import migrate
from jobqueue.store.jobs import Jobs

WORKERS = 3
LIMIT = 90.0  # seconds; a machine where it takes longer has something wrong
LOOK = 0.1


def perform(url: URL, folder: Path, story: Story) -> Run:
    """Run the demo on a database; raises JobQueueError when it cannot be run to its end."""
    run = Run(url, f"demo-{secrets.token_hex(3)}", folder)
    migrate.upgrade(url)
    with JobQueue(url.render_as_string(hide_password=False)) as jobs:
        ids = _enqueue(run, jobs, story)
        _work(run, jobs, ids, story)
        story.tell("proof", "every file is read again here, and compared with the database")
        run.proof = prove(recount(modules()), jobs, run.queue, run.killed)
        run.answers = [
            (asked, ask(jobs.store, asked)) for asked in questions(jobs.store, run.queue)
        ]
    return run


def _enqueue(run: Run, jobs: JobQueue, story: Story) -> list[int]:
    names = modules()
    if not names:
        raise JobQueueError("this Python's standard library has no .py files to work on")
    task = register(jobs).options(queue=run.queue)
    began = time.monotonic()
    handles = jobs.enqueue_many(task.call(name) for name in names)
    run.enqueued_in = time.monotonic() - began
    run.files, run.lingering = len(names), sum(map(lingers, names))
    story.tell(
        "enqueued",
        f"{counted(run.files, 'job')} in {run.enqueued_in:.2f} s,"
        " one for each module of Python's library",
    )
    return [job.id for job in handles]


def _work(run: Run, jobs: JobQueue, ids: list[int], story: Story) -> None:
    rows = Jobs(jobs.store)
    began = time.monotonic()
    with Crew(jobs.store.url.render_as_string(hide_password=False), run.queue, run.folder) as crew:
        crew.start(WORKERS)
        run.workers = [member.name for member in crew.members]
        pids = ", ".join(str(member.pid) for member in crew.members)
        story.tell("workers", f"{WORKERS} processes: {pids}")
        with story.progress(run.files) as advance:
            for done, id_ in enumerate(_as_they_end(rows, ids, crew), start=1):
                advance()
                if run.killed is None and done >= run.files // 2:
                    _kill_one(run, crew, rows, ids, story)
                run.note(id_)
        run.worked_in = time.monotonic() - began
        if run.recovered_in is not None:
            held = counted(len(run.held), "job")
            later = f"{run.recovered_in:.1f} s after the kill"
            story.tell("again", f"the others had done its {held} {later}")
        codes = crew.stop()
        run.exit_codes = {
            member.name: codes[member.pid] for member in crew.members if not member.killed
        }


def _kill_one(run: Run, crew: Crew, rows: Jobs, ids: list[int], story: Story) -> None:
    running = JobFilter(ids=tuple(ids), state=State.RUNNING)

    def held_by(worker: str) -> list[int]:
        return [record.id for record in rows.find(running) if record.worker == worker]

    member, run.held = crew.kill_one(held_by)
    run.killed, run.killed_at = member.name, time.monotonic()
    run.waiting = set(run.held)
    held = counted(len(run.held), "job")
    story.tell("kill -9", f"worker {member.pid}, while it held {held}", "red")


def _as_they_end(rows: Jobs, ids: list[int], crew: Crew) -> Iterator[int]:
    """The id of each job when it has ended, as long as the workers live."""
    left = dict.fromkeys(ids)
    until, pause = time.monotonic() + LIMIT, threading.Event()
    while left:
        states = rows.states(list(left))
        # A job that is not there will not end either; that it is missing is for the proof to say.
        for id_ in [id_ for id_ in left if states.get(id_) in (None, *FINAL)]:
            del left[id_]
            yield id_
        crew.check()
        if left and time.monotonic() > until:
            stand = Counter(states[id_].value for id_ in left)
            shown = ", ".join(f"{count} {state}" for state, count in stand.items())
            raise JobQueueError(
                f"after {LIMIT:g} s {len(left):,} of {len(ids):,} jobs had not ended ({shown}),"
                f" such as job {min(left)}; what the workers said is in {crew.folder}"
            )
        pause.wait(LOOK)
