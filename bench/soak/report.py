"""The end of a soak: the evidence is put together, judged, and printed."""

import json
import re
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.soak.evidence import Attempt, Evidence, Row, boottime, runs_of
from bench.soak.fleet import LEASE
from bench.soak.judge import Complaint, Verdict, judge
from bench.soak.place import LOST, Place

if TYPE_CHECKING:
    from bench.soak.command import Soak

DETAILED = 4
"""Complaints of one kind that are shown in full."""


def rows_of(place: Place) -> list[Row]:
    """Every job that the database knows, with its attempts."""
    since_boot = boottime() - time.time()

    def at(value: datetime | str | None) -> float | None:
        if value is None:
            return None
        instant = datetime.fromisoformat(value) if isinstance(value, str) else value
        instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        return instant.timestamp() + since_boot

    rows: dict[int, Row] = {}
    for id_, args, *middle, finished in place.database.execute(
        "SELECT id, args, task, state, attempt, max_attempts, fence, worker, reason, finished_at"
        " FROM jobqueue_jobs ORDER BY id"
    ):
        rows[id_] = Row(id_, json.loads(args)["args"][0], *middle, at(finished))
    for job, fence, worker, outcome, error, finished in place.database.execute(
        "SELECT job_id, fence, worker, outcome, error_type, finished_at"
        " FROM jobqueue_attempts ORDER BY job_id, fence"
    ):
        if job in rows:
            rows[job].attempts.append(Attempt(fence, worker, outcome, error, at(finished)))
    return list(rows.values())


def evidence_of(soak: "Soak") -> Evidence:
    """What handlers and the soak have written down."""
    lines = [json.loads(line) for line in soak.log_path.read_bytes().splitlines()]
    runs, stalls = runs_of(lines)
    lives = {worker.name: worker.life for worker in soak.fleet.all}
    for name, still in stalls.items():
        lives[name].stopped += still
    return Evidence(LEASE, lives, runs, soak.faults.crashes, soak.faults.outages, LOST)


def report(given: Any, place: Place, soak: "Soak") -> int:
    """Judge, and print it; gives the exit code."""
    evidence, rows = evidence_of(soak), rows_of(place)
    counted = place.database.execute("SELECT number, count(*) FROM soak_effects GROUP BY number")
    verdict = judge(evidence, rows, soak.producer.enqueued, Counter(dict(counted)))
    complaints = [*soak.complaints, *verdict.complaints]
    print("\n".join(_table(given, soak, verdict)))
    by_number = {row.number: row for row in rows}
    print("\n".join(_shown([*complaints, *verdict.notes], evidence, by_number)))
    if not complaints:
        print("\nOK: every job that the database knows is final, and every second run is explained")
        return 0
    print(
        f"\nFAILED: {len(complaints)} complaints; seed {given.seed}; logs in {_kept(place, given.seed)}"
    )
    return 1


def _table(given: Any, soak: "Soak", verdict: Verdict) -> Iterator[str]:
    yield f"\n| soak on {given.database}, {given.minutes:g} minutes, seed {given.seed} | |"
    yield "|---|---:|"
    stalls = sum(b - a for worker in soak.fleet.all for a, b in worker.life.stopped)
    groups = (
        verdict.figures,
        {"enqueues that found the key's holder": soak.producer.existing},
        {f"enqueues refused: {what}": count for what, count in soak.producer.refused.items()},
        {f"fault: {what}": count for what, count in sorted(soak.faults.counts.items())},
        {
            "workers started": soak.fleet.started,
            "… in vain, the database being away": soak.failed_starts,
        },
        {"seconds that workers stood still": round(stalls)},
        {f"ran again: {why}": count for why, count in sorted(verdict.causes.items())},
    )
    for group in groups:
        yield from (f"| {what} | {count:,} |" for what, count in group.items())


def _shown(complaints: list[Complaint], evidence: Evidence, rows: dict[int, Row]) -> Iterator[str]:
    kinds: dict[str, list[Complaint]] = {}
    for complaint in complaints:
        kinds.setdefault(re.sub(r"[\d.]+", "N", complaint.what), []).append(complaint)
    for kind, some in kinds.items():
        yield f"\n### {len(some)} × {kind}"
        for complaint in some[:DETAILED]:
            yield from _details(complaint, evidence, rows)


def _details(complaint: Complaint, evidence: Evidence, rows: dict[int, Row]) -> Iterator[str]:
    number = complaint.number
    about = "" if number is None else f" (number {number})"
    yield f"\n- {complaint.what}{about} {complaint.detail}"
    names = {complaint.worker} & set(evidence.lives)
    if number is not None:
        row = rows.get(number)
        runs = evidence.runs.get(number, [])
        attempts = row.attempts if row else []
        yield f"    row: {row}"
        yield from (f"    attempt: {one}" for one in attempts)
        yield from (f"    run: {run}" for run in runs)
        names |= {run.worker for run in runs}
        moments = [run.began for run in runs] + [run.ended for run in runs if run.ended]
        moments += [one.at for one in attempts]
        since, until = min(moments, default=0) - 5, max(moments, default=0) + 5
        crashes = [f"{at:.2f}" for at in evidence.crashes if since <= at <= until]
        away = [f"{a:.2f} to {b:.2f}" for a, b in evidence.outages if a <= until and since <= b]
        yield f"    crashes of the server: {', '.join(crashes) or 'none'}"
        yield f"    nobody could write: {', '.join(away) or 'never'}"
    yield from (f"    worker {evidence.lives[name]}" for name in sorted(names))


def _kept(place: Place, seed: int) -> str:
    """A copy of the logs, and of a SQLite file, that stays."""
    target = Path(tempfile.mkdtemp(prefix=f"jobqueue-soak-{seed}-"))
    for log in place.folder.glob("*.log"):
        shutil.copy(log, target)
    if place.database.path is not None:
        with closing(sqlite3.connect(place.database.path)) as source:
            with closing(sqlite3.connect(target / "soak.db")) as copy:
                source.backup(copy)
    return str(target)
