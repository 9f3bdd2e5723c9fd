"""The proof: what the database says, held against files that are read again, here and now."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jobqueue.cli.demo.tasks import LIBRARY, Digest, stumbles
from jobqueue.queue import JobQueue
from jobqueue.records import AttemptRecord, JobRecord
from jobqueue.states import State
from jobqueue.store.jobs import Jobs
from jobqueue.store.stats import Monitor

SHOWN = 3


@dataclass
class Proof:
    """What was found: what is right, what is wrong, and the numbers, all from the database."""

    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    accepted: int = 0
    lines: int = 0
    attempts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def claim(self, text: str, objections: Iterable[str]) -> None:
        """Put down a claim as right, or, if there are objections, those as wrong."""
        found = list(objections)
        if not found:
            self.right.append(text)
            return
        more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
        self.wrong.append(f"NOT {text}: {'; '.join(found[:SHOWN])}{more}")


def recount(modules: Iterable[str]) -> dict[str, Digest]:
    """Read the files again, by other means than the task's."""
    found = {}
    for module in modules:
        content = (LIBRARY / module).read_bytes()
        lines = content.count(b"\n") + (not content.endswith(b"\n") and content != b"")
        found[module] = Digest(hashlib.sha256(content).hexdigest(), lines)
    return found


def prove(
    files: Mapping[str, Digest], jobs: JobQueue, queue: str, killed: str | None = None
) -> Proof:
    """Compare the files with a queue's jobs in the database. `killed` names the killed worker."""
    records = list(jobs.list(queue=queue, limit=None))
    by_file: dict[str, list[JobRecord]] = defaultdict(list)
    for record in records:
        by_file[json.loads(record.args)["args"][0]].append(record)
    rows = [row for row in Monitor(jobs.store).queues() if row["queue"] == queue]
    reader = Jobs(jobs.store)
    # A job that was claimed once and succeeded has fence 2, and no attempts but that one.
    tried = {record.id: reader.attempts(record) for record in records if record.fence != 2}  # noqa: PLR2004
    proof = Proof(
        accepted=sum(row["succeeded"] for row in rows),
        lines=sum(digest.lines for digest in files.values()),
        attempts=sum(record.attempt for record in records),
        outcomes=Counter(attempt.outcome for found in tried.values() for attempt in found),
    )
    proof.outcomes["succeeded"] += len(records) - len(tried)
    count = f"{len(files):,}"
    proof.claim(f"{count} files, one job each: none missing, none twice", _one_each(files, by_file))
    proof.claim(f"all {count} jobs succeeded", _unfinished(records))
    right = f"{count} right SHA-256 and line counts ({proof.lines:,} lines)"
    proof.claim(right, _wrong(files, by_file))
    accepted = [] if proof.accepted == len(files) else [f"{proof.accepted:,} were counted"]
    proof.claim(f"{count} results accepted, no more", accepted)
    outcomes = proof.outcomes
    attempts = (
        f"{outcomes.total():,} attempts: {outcomes['succeeded']:,} succeeded,"
        f" {outcomes['errored']:,} errored on purpose, {outcomes['lost']:,} killed"
    )
    proof.claim(attempts, _mischarged(records, tried))
    moved = "what the killed worker held was done by the others"
    proof.claim(moved if killed else "no worker lost a job", _not_moved(records, tried, killed))
    return proof


def _one_each(files: Mapping[str, Digest], found: Mapping[str, list[JobRecord]]) -> list[str]:
    objections = [f"{name} has no job" for name in files if name not in found]
    objections += [f"{name} is no file of ours" for name in found if name not in files]
    return objections + [
        f"{name} has jobs {', '.join(str(record.id) for record in records)}"
        for name, records in found.items()
        if len(records) > 1
    ]


def _unfinished(records: Iterable[JobRecord]) -> list[str]:
    return [
        f"job {record.id} is {record.state}"
        for record in records
        if record.state is not State.SUCCEEDED
    ]


def _wrong(files: Mapping[str, Digest], found: Mapping[str, list[JobRecord]]) -> list[str]:
    objections = []
    for name, digest in files.items():
        right = {"sha256": digest.sha256, "lines": digest.lines}
        for record in found.get(name, ()):
            result = None if record.result is None else json.loads(record.result)
            if result != right:
                objections.append(f"job {record.id} ({name}) says {result}, the file {right}")
    return objections


def _mischarged(
    records: Iterable[JobRecord], tried: Mapping[int, list[AttemptRecord]]
) -> list[str]:
    """Each job's attempts must be those that it was charged with, and errored only as staged."""
    objections = []
    for record in records:
        attempts = tried.get(record.id, [])
        charged = [attempt for attempt in attempts if attempt.outcome != "lost"]
        numbers = [attempt.attempt for attempt in charged] or [1]
        if numbers != list(range(1, record.attempt + 1)):
            objections.append(
                f"job {record.id} was charged {record.attempt}, and has attempts {numbers}"
            )
        module = json.loads(record.args)["args"][0]
        first = charged[0].outcome if charged else "succeeded"
        if stumbles(module) and first != "errored":
            objections.append(f"the first attempt of job {record.id} ({module}) {first}")
        errored = [attempt for attempt in attempts if attempt.outcome == "errored"]
        if errored and not (stumbles(module) and [one.attempt for one in errored] == [1]):
            objections.append(f"job {record.id} ({module}) errored: {errored[-1].error}")
        others = {attempt.outcome for attempt in attempts} - {"errored", "lost", "succeeded"}
        objections += [f"an attempt of job {record.id} is {outcome}" for outcome in others]
    return objections


def _not_moved(
    records: Iterable[JobRecord], tried: Mapping[int, list[AttemptRecord]], killed: str | None
) -> list[str]:
    """The killed worker alone must have lost something, and what it lost is not its own success."""
    lost = {
        id_: {one.worker for one in attempts if one.outcome == "lost"}
        for id_, attempts in tried.items()
    }
    by_killed = {id_ for id_, workers in lost.items() if killed in workers}
    objections = [
        f"job {id_} was lost by {worker}, which was not killed"
        for id_, workers in lost.items()
        for worker in workers
        if worker != killed
    ]
    if killed is not None and not by_killed:
        objections.append(f"{killed} held nothing when it was killed")
    return objections + [
        f"job {record.id} was lost with {killed}, and yet it succeeded there"
        for record in records
        if record.id in by_killed and record.worker == killed
    ]
