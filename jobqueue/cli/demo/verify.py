"""Verifies a run: what the database has against files that are read again here."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL

from jobqueue.cli.demo.app import LIBRARY, Digest, fails_once
from jobqueue.queue import JobQueue
from jobqueue.records import JobRecord
from jobqueue.states import State
from jobqueue.store.stats import Monitor

OBJECTIONS_SHOWN = 3

Row = dict[str, Any]


@dataclass
class Proof:
    """The claims that hold, those that do not, and the numbers, all from the database."""

    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    accepted: int = 0
    lines: int = 0
    attempts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    workers: dict[str | None, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Counts of each worker: `jobs` that it ended, and attempts by outcome that did not succeed."""

    def claim(self, text: str, objections: Collection[str]) -> None:
        """Record a claim as right, or as wrong with the first objections."""
        if not objections:
            self.right.append(text)
            return
        first, rest = list(objections)[:OBJECTIONS_SHOWN], len(objections) - OBJECTIONS_SHOWN
        more = f" (and {rest} more)" if rest > 0 else ""
        self.wrong.append(f"NOT {text}: {'; '.join(first)}{more}")


@dataclass
class Run:
    """What a run of the demo did. Times are seconds."""

    url: URL
    queue: str
    folder: Path
    files: int = 0
    slow: int = 0
    enqueued_in: float = 0.0
    worked_in: float = 0.0
    workers: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    """The ids of the jobs that the killed worker left running."""
    recovered_in: float | None = None
    """From the kill to the end of the last of these."""
    exit_codes: dict[str, int] = field(default_factory=dict)
    proof: Proof = field(default_factory=Proof)

    @property
    def problems(self) -> list[str]:
        """What is not as it should be, a line each."""
        return self.proof.wrong + [
            f"NOT all stopped in order: {name} ended with {code}"
            for name, code in self.exit_codes.items()
            if code
        ]


def recount(modules: Iterable[str]) -> dict[str, Digest]:
    """Read the files again, by other means than the task's."""
    found = {}
    for module in modules:
        content = (LIBRARY / module).read_bytes()
        lines = content.count(b"\n") + (not content.endswith(b"\n") and content != b"")
        found[module] = Digest(hashlib.sha256(content).hexdigest(), lines)
    return found


def verify(
    files: Mapping[str, Digest], jobs: JobQueue, queue: str, killed: Collection[str] = ()
) -> Proof:
    """Compare files with a queue's jobs. `killed`: the names of the workers that were killed."""
    done = [_Job(record, []) for record in jobs.list(queue=queue, limit=None)]
    by_id = {job.record.id: job for job in done}
    with jobs.store.read() as connection:
        sql = NOT_SUCCEEDED.replace("QUEUE", queue)
        for attempt in connection.exec_driver_sql(sql).mappings():
            by_id[attempt["job_id"]].failed.append(dict(attempt))
    queues = Monitor(jobs.store).bounded_queues()
    proof = Proof(
        accepted=sum(row["succeeded"] for row in queues if row["queue"] == queue),
        lines=sum(digest.lines for digest in files.values()),
        attempts=sum(job.record.attempt for job in done),
        outcomes=Counter(row["outcome"] for job in done for row in job.failed),
    )
    for job in done:
        proof.workers[job.record.worker]["jobs"] += 1
        for row in job.failed:
            proof.workers[row["worker"]][row["outcome"]] += 1
    proof.outcomes["succeeded"] = sum(job.succeeded for job in done)
    accepted = [] if proof.accepted == len(files) else [f"{proof.accepted:,} were counted"]
    attempts = (
        f"{proof.outcomes.total():,} attempts: {proof.outcomes['succeeded']:,} succeeded,"
        f" {proof.outcomes['errored']:,} errored on purpose, {proof.outcomes['lost']:,} killed"
    )
    moved = (
        "what the killed worker held was done by the others" if killed else "no worker lost a job"
    )
    count = f"{len(files):,}"
    for claim, objections in {
        f"{count} files, one job each: none missing, none twice": _not_one_each(files, done),
        f"all {count} jobs succeeded": [
            f"job {job.record.id} is {job.record.state}" for job in done if not job.succeeded
        ],
        f"{count} right SHA-256 and line counts ({proof.lines:,} lines)": _wrong(files, done),
        f"{count} results accepted, no more": accepted,
        attempts: [line for job in done for line in _mischarged(job)],
        moved: _not_moved(done, killed),
    }.items():
        proof.claim(claim, objections)
    return proof


class _Job(NamedTuple):
    record: JobRecord
    failed: list[Row]  # Attempts that did not succeed.

    @property
    def module(self) -> str:
        return str(json.loads(self.record.args)["args"][0])

    @property
    def succeeded(self) -> bool:
        return self.record.state is State.SUCCEEDED

    def __str__(self) -> str:
        return f"job {self.record.id} ({self.module})"


def _not_one_each(files: Mapping[str, Digest], done: Iterable[_Job]) -> list[str]:
    counts = Counter(job.module for job in done)
    return [
        f"{name} has {counts[name]} jobs, not {int(name in files)}"
        for name in {**files, **counts}
        if counts[name] != (name in files)
    ]


def _wrong(files: Mapping[str, Digest], done: Iterable[_Job]) -> list[str]:
    objections = []
    for job in done:
        result = json.loads(job.record.result or "null")
        right = asdict(files[job.module]) if job.module in files else None
        if result != right:
            objections.append(f"{job} says {result}, the file {right}")
    return objections


def _mischarged(job: _Job) -> list[str]:
    """Compare with what is staged: the first attempt fails, or none; lost ones are not charged."""
    failed = [(row["attempt"], row["outcome"]) for row in job.failed if row["outcome"] != "lost"]
    staged = [(1, "errored")] if fails_once(job.module) else []
    if failed == staged and job.record.attempt == len(staged) + 1:
        return []
    return [
        f"{job} was charged {job.record.attempt} attempts, and failed in {failed}, not {staged}"
    ]


def _not_moved(done: Iterable[_Job], killed: Collection[str]) -> list[str]:
    """Only a killed worker may have lost jobs, and none of those succeeded there."""
    lost = [(job, row["worker"]) for job in done for row in job.failed if row["outcome"] == "lost"]
    objections = [
        f"{job} was lost by {worker}, which was not killed"
        for job, worker in lost
        if worker not in killed
    ]
    objections += [
        f"{job} was lost with {worker}, and yet it succeeded there"
        for job, worker in lost
        if worker == job.record.worker
    ]
    if killed and not lost:
        objections.append(f"{', '.join(killed)} held nothing when it was killed")
    return objections


NOT_SUCCEEDED = """\
SELECT a.job_id, a.worker, a.attempt, a.outcome
FROM jobqueue_attempts a JOIN jobqueue_jobs j ON j.id = a.job_id
WHERE j.queue = 'QUEUE' ORDER BY a.job_id, a.fence"""
