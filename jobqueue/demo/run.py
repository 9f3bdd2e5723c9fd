"""The demo's course: enqueue, start workers, kill one half-way, wait for the end, prove."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from jobqueue.demo.crew import Crew
from jobqueue.demo.proof import Proof, prove, recount
from jobqueue.demo.questions import Question, ask, questions
from jobqueue.demo.show import Story
from jobqueue.demo.tasks import Digest, lingers, modules, register
from jobqueue.errors import JobQueueError, ResultTimeout
from jobqueue.job import Job
from jobqueue.queue import JobQueue
from jobqueue.records import JobFilter
from jobqueue.states import State
from jobqueue.store import migrate
from jobqueue.store.jobs import Jobs

WORKERS = 3
LIMIT = 90.0  # seconds; a machine where it takes longer has something wrong
LOOK = 1.0


@dataclass
class Run:
    """What a run of the demo did. Times are seconds."""

    url: URL
    queue: str
    folder: Path
    files: int = 0
    lingering: int = 0
    enqueued_in: float = 0.0
    worked_in: float = 0.0
    workers: list[str] = field(default_factory=list)
    killed: str | None = None
    held: list[int] = field(default_factory=list)
    recovered_in: float | None = None
    exit_codes: dict[str, int] = field(default_factory=dict)
    proof: Proof = field(default_factory=Proof)
    answers: list[tuple[Question, list[dict[str, Any]]]] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """What is not as it should be."""
        codes = self.exit_codes.items()
        bad = [
            f"NOT all stopped in order: {name} ended with {code}" for name, code in codes if code
        ]
        return self.proof.wrong + bad


def perform(url: URL, folder: Path, story: Story) -> Run:
    """Run the demo on a database; raises JobQueueError when it cannot be run to its end."""
    run = Run(url, f"demo-{secrets.token_hex(3)}", folder)
    migrate.upgrade(url)
    with JobQueue(url.render_as_string(hide_password=False)) as jobs:
        handles = _enqueue(run, jobs, story)
        _work(run, jobs, handles, story)
        story.tell("proof", "every file is read again here, and compared with the database")
        run.proof = prove(recount(modules()), jobs, run.queue, run.killed)
        run.answers = [
            (asked, ask(jobs.store, asked)) for asked in questions(jobs.store, run.queue)
        ]
    return run


def _enqueue(run: Run, jobs: JobQueue, story: Story) -> list[Job[Digest]]:
    names = modules()
    if not names:
        raise JobQueueError("this Python's standard library has no .py files to work on")
    task = register(jobs).options(queue=run.queue)
    began = time.monotonic()
    handles = jobs.enqueue_many(task.call(name) for name in names)
    run.lingering = sum(map(lingers, names))
    run.files, run.enqueued_in = len(names), time.monotonic() - began
    story.tell(
        "enqueued",
        f"{run.files:,} jobs in {run.enqueued_in:.2f} s, one for each module of Python's library",
    )
    return handles


def _work(run: Run, jobs: JobQueue, handles: list[Job[Digest]], story: Story) -> None:
    rows = Jobs(jobs.store)

    def held_by(worker: str) -> list[int]:
        mine = JobFilter(ids=tuple(job.id for job in handles), state=State.RUNNING)
        return [record.id for record in rows.find(mine) if record.worker == worker]

    began = killed_at = time.monotonic()
    waiting: set[int] = set()
    with Crew(jobs.store.url.render_as_string(hide_password=False), run.queue, run.folder) as crew:
        crew.start(WORKERS)
        run.workers = [member.name for member in crew.members]
        pids = ", ".join(str(member.pid) for member in crew.members)
        story.tell("workers", f"{WORKERS} processes: {pids}")
        with story.progress(run.files) as advance:
            for done, job in enumerate(_as_they_end(jobs, handles, crew), start=1):
                advance()
                if run.killed is None and done >= run.files // 2:
                    member, run.held = crew.kill_one(held_by)
                    run.killed, killed_at = member.name, time.monotonic()
                    waiting = set(run.held)
                    story.tell(
                        "kill -9", f"worker {member.pid}, with {_jobs(waiting)} in its hands", "red"
                    )
                if job.id in waiting:
                    waiting.discard(job.id)
                    if not waiting:
                        run.recovered_in = time.monotonic() - killed_at
        run.worked_in = time.monotonic() - began
        if run.recovered_in is not None:
            story.tell(
                "again",
                f"those {_jobs(run.held)} were done by the others, {run.recovered_in:.1f} s later",
            )
        codes = crew.stop()
        run.exit_codes = {
            member.name: codes[member.pid] for member in crew.members if not member.killed
        }


def _as_they_end(jobs: JobQueue, handles: list[Job[Digest]], crew: Crew) -> Iterator[Job[Digest]]:
    """Each job when it has ended, as long as the workers live."""
    left = {job.id: job for job in handles}
    until = time.monotonic() + LIMIT
    while left:
        try:
            for job in jobs.as_completed(list(left.values()), timeout=LOOK):
                del left[job.id]
                yield job
        except ResultTimeout:
            crew.check()
            if time.monotonic() > until:
                raise JobQueueError(
                    f"{len(left):,} of {len(handles):,} jobs were not done after {LIMIT:g} s;"
                    f" look with: jobqueue list --queue {handles[0].record().queue}"
                ) from None


def _jobs(ids: object) -> str:
    count = len(ids)  # type: ignore[arg-type]
    return "1 job" if count == 1 else f"{count} jobs"
