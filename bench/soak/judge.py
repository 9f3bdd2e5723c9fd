"""The judge: why did a job run again? Nothing here reads a clock, a file or a database.

A run after the first needs a cause that was seen from outside: an attempt that errored; a worker that was killed, or frozen beyond its
lease, or made to stop before its handlers ended; or a commit that the server had answered and then lost. Tolerances are for a busy
machine: three times what the promises say.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from bench.soak.evidence import Attempt, Enqueued, Evidence, Interval, Life, Row, Run, merged

SETTLE = 2.0  # seconds in which an outcome is written, a lease is lost, a signal is heard
FORGOTTEN = 30.0  # seconds after a crash in which a worker may still hold, in the database, what it has ended
AGAIN = 5.0  # seconds after a crash in which a worker claims again what the server had lost
STALE = 1.0  # seconds between a thawed worker's last look at its lease and a handler's first line
FROZEN = 0.6
"""The share of a lease from which on standing still may cost it: beats are a third of a lease apart."""

FINAL = ("succeeded", "failed", "cancelled")
ERRORED = ("errored", "timed out")

RETRY = "an attempt that errored"
KILLED = "its worker was killed"
FREEZE = "its worker was frozen beyond its lease"
STOPPED = "its worker was made to stop before it ended"
LOST = "the server had lost a commit"
RESENT = "an outcome for a claim that the server had lost ended the next claim"


class Complaint(NamedTuple):
    """What nothing explains; the job's number, where it is about one."""

    what: str
    number: int | None = None
    worker: str | None = None
    detail: str = ""


# Why a worker lost what it held


def freezes(life: Life, lease: float) -> list[Interval]:
    """When it stood still for so long, within one lease and a bit, that its lease may have ended."""
    still = merged(life.stopped)
    long = []
    for begin, _ in still:
        within = [
            (a, min(b, begin + 1.5 * lease)) for a, b in still if begin <= a < begin + 1.5 * lease
        ]
        if sum(b - a for a, b in within) >= FROZEN * lease:
            long.append((begin, max(b for a, b in still if a < begin + 1.5 * lease)))
    return merged(long)


def frozen(run: Run, until: float, evidence: Evidence) -> bool:
    """Whether its worker froze while it held that claim, which then began at most a moment after the thaw."""
    life = evidence.lives[run.worker]
    return any(
        begin <= until
        and run.claimed <= end
        and run.began <= end + STALE
        and (run.ended is None or unwritten(run.ended, begin, evidence))
        for begin, end in freezes(life, evidence.lease)
    )


def unwritten(ended: float, at: float, evidence: Evidence) -> bool:
    """Whether an outcome that there was at `ended` may still have been unwritten at `at`."""
    trouble = merged((a, b + SETTLE) for a, b in evidence.outages)
    reach = ended + SETTLE
    for begin, end in trouble:
        if begin <= reach:
            reach = max(reach, end + SETTLE) if end >= ended else reach
    return at <= reach


def killed(run: Run, until: float, evidence: Evidence) -> bool:
    """Whether its worker was killed before it had written the outcome. (A child may live on for a moment.)"""
    at = evidence.lives[run.worker].killed
    return (
        at is not None
        and at <= until
        and run.began <= at + SETTLE
        and (run.ended is None or unwritten(run.ended, at, evidence))
    )


def made_to_stop(run: Run, until: float, evidence: Evidence) -> bool:
    """Whether its worker stopped without waiting for it, and said so with its exit code."""
    life = evidence.lives[run.worker]
    if life.terminated is None or life.code in (0, None) or life.terminated > until:
        return False
    # It is given back when the timeout has passed, or the second signal came; then the process exits.
    given_back = life.exited if life.again is None else min(life.again, life.exited)
    return run.ended is None or unwritten(run.ended, given_back, evidence)


def claim_lost(run: Run, until: float, evidence: Evidence) -> bool:
    """Whether a crash of the server may have taken back the claim."""
    return evidence.crashed(run.claimed, min(until, run.claimed + evidence.window))


def outcome_lost(run: Run, until: float, evidence: Evidence) -> bool:
    """Whether a crash of the server may have taken back the outcome."""
    if run.ended is None:
        return False
    return evidence.crashed(run.ended, min(until, run.ended + evidence.window + SETTLE))


def lease_lost(life: Life, until: float, evidence: Evidence) -> bool:
    """Whether a crash of the server may have taken back that worker's lease, taken at its start or after a thaw."""
    taken = [end for _, end in freezes(life, evidence.lease)]
    taken += [] if life.ready is None else [life.ready]
    return any(
        evidence.crashed(at - SETTLE, min(until, at + evidence.window + SETTLE)) for at in taken
    )


# Why a job ran again


def cause(
    runs: list[Run], place: int, row: Row | None, once: bool, evidence: Evidence
) -> str | None:
    """Why the run at that place began, though another had begun before; None: nothing explains it."""
    run = runs[place]
    lower = [one for one in runs[:place] if one.fence < run.fence]
    other = [one for one in runs[:place] if one.fence >= run.fence]
    if other:
        return _out_of_order(run, other, once, evidence)
    before = max(lower, key=lambda one: one.fence)
    if once:
        return LOST if claim_lost(before, run.began, evidence) else None
    return _after(before, run.began, row, evidence)


def _after(before: Run, at: float, row: Row | None, evidence: Evidence) -> str | None:
    """Why something happened to the job at that time, although that claim had begun."""
    ended = None if row is None else row.ended(before)
    if before.how == "raised" and ended is not None and ended.outcome in ERRORED:
        return RETRY if before.ended <= at else None
    if (
        before.how == "raised"
        and before.ended <= at
        and evidence.crashed(before.ended, before.ended + evidence.window)
    ):
        return RETRY  # It was recorded by then, and the server lost that afterwards.
    if killed(before, at, evidence):
        return KILLED
    if frozen(before, at, evidence):
        return FREEZE
    if made_to_stop(before, at, evidence):
        return STOPPED
    if outcome_lost(before, at, evidence):
        return LOST
    unclaimed = (
        ended is None or ended.outcome == "released"
    )  # Its worker forgot it, and gave it back.
    if unclaimed and claim_lost(before, at, evidence):
        return LOST
    if (ended is None or ended.outcome == "lost") and lease_lost(
        evidence.lives[before.worker], at, evidence
    ):
        return LOST
    return _resent(before, at, evidence) if ended is None else None


def _out_of_order(run: Run, other: list[Run], once: bool, evidence: Evidence) -> str | None:
    """Why a claim began when a later one, or one with its very fence, had begun."""
    if all(one.fence > run.fence for one in other) and not once:
        long = freezes(evidence.lives[run.worker], evidence.lease)
        if any(begin <= run.began <= end + STALE for begin, end in long):
            return FREEZE  # It was frozen between the question for its lease and its first line.
    lost = any(claim_lost(one, run.began, evidence) for one in [*other, run])
    if lost:
        return LOST
    return None if once else _resent(run, run.began, evidence)


def _resent(run: Run, until: float, evidence: Evidence) -> str | None:
    """The worker had that job's claim before, the crash took it back, and it claimed it again with the same fence.

    What it then says of the first claim, such as that it goes back unbegun, the database takes for the second. The first never
    began, so nothing was written down of it; but the second came soon after the crash.
    """
    return RESENT if evidence.crashed(run.claimed - AGAIN, min(until, run.claimed)) else None


class Verdict(NamedTuple):
    """Complaints, notes; how often each cause explained a second run; what else is worth a line."""

    complaints: list[Complaint]
    notes: list[Complaint]
    """What is explained, by a cause that deserves a look."""
    causes: Counter[str]
    figures: dict[str, int]


def judge(
    evidence: Evidence, rows: list[Row], enqueued: list[Enqueued], effects: Counter[int]
) -> Verdict:
    """Everything. `effects` are the rows that handlers wrote with `finish_within`, by number."""
    by_number: dict[int, Row] = {row.number: row for row in rows}
    once = {one.number for one in enqueued if one.kind == "once"}
    once |= {row.number for row in rows if row.max_attempts == 1}
    causes: Counter[str] = Counter()
    notes: list[Complaint] = []
    complaints = list(_twice(rows))
    for number, runs in evidence.runs.items():
        row = by_number.get(number)
        for place in range(1, len(runs)):
            why = cause(runs, place, row, number in once, evidence)
            if why is None:
                complaints.append(Complaint(_second_run(runs, place, number in once), number))
            else:
                causes[why] += 1
                if why == RESENT:
                    notes.append(Complaint(f"{why} (no failure, but look at it)", number))
        complaints += (Complaint(*late, number) for run in runs if (late := _late(run, evidence)))
    lost, wrong = _unknown(enqueued, by_number, evidence)
    complaints += wrong
    for row in rows:
        complaints += _of_row(row, evidence, effects[row.number])
    figures = {
        "jobs acknowledged": len(enqueued),
        "… known to the database": len(rows),
        "… lost by the server": lost,
        "jobs that succeeded": sum(row.state == "succeeded" for row in rows),
        "jobs that failed, of one attempt": sum(
            row.state == "failed" and row.max_attempts == 1 for row in rows
        ),
        "jobs that failed, others": sum(
            row.state == "failed" and row.max_attempts > 1 for row in rows
        ),
        "runs": sum(map(len, evidence.runs.values())),
    }
    return Verdict(complaints, notes, causes, figures)


def _second_run(runs: list[Run], place: int, once: bool) -> str:
    run = runs[place]
    same = [one for one in runs[:place] if one.fence == run.fence]
    stale = [one for one in runs[:place] if one.fence > run.fence]
    if same:
        return f"fence {run.fence} was given twice"
    if stale:
        return f"a stale claim began: fence {run.fence} after {stale[-1].fence}"
    return "a job of one attempt began twice" if once else "it ran again, and nothing explains it"


def _twice(rows: list[Row]) -> Iterator[Complaint]:
    for number, count in Counter(row.number for row in rows).items():
        if count > 1:
            yield Complaint(f"one enqueue made {count} jobs", number)


def _late(run: Run, evidence: Evidence) -> tuple[str] | None:
    """A job that began although its worker had been told to stop."""
    life = evidence.lives[run.worker]
    if life.terminated is None or run.began <= life.terminated + SETTLE:
        return None
    if any(begin <= run.began and life.terminated <= end + SETTLE for begin, end in life.stopped):
        return None
    return (f"it began {run.began - life.terminated:.1f} s after its worker was told to stop",)


def _unknown(
    enqueued: list[Enqueued], known: dict[int, Row], evidence: Evidence
) -> tuple[int, list[Complaint]]:
    """Acknowledged jobs that the database no longer knows: how many the server may have lost, and the others."""
    gone = [one for one in enqueued if one.number not in known]
    wrong = [one for one in gone if not evidence.crashed(one.at - 0.5, one.at + evidence.window)]
    return len(gone) - len(wrong), [
        Complaint("an acknowledged job is gone", one.number) for one in wrong
    ]


def _of_row(row: Row, evidence: Evidence, effects: int) -> Iterator[Complaint]:
    runs = evidence.runs.get(row.number, [])
    if row.state not in FINAL:
        who = f" in the name of {row.worker}" if row.state == "running" else ""
        yield Complaint(f"it is not final but {row.state}{who}", row.number)
    if row.task == "pay" and effects != (row.state == "succeeded"):
        yield Complaint(f"it is {row.state} and has {effects} effects", row.number)
    if row.state == "succeeded" and not any(run.how == "end" or row.task == "pay" for run in runs):
        yield Complaint("it succeeded, and no handler has ended", row.number)
    if row.state == "failed" and (wrong := _failed(row, runs, evidence)):
        yield Complaint(wrong, row.number)
    for attempt in row.attempts:
        if attempt.outcome == "lost" and not _may_be_lost(attempt, evidence):
            life = evidence.lives.get(attempt.worker or "")
            gone = life is not None and (life.exited or attempt.at + SETTLE) < attempt.at + SETTLE
            what = (
                "a worker that stopped in order left it behind"
                if gone
                else "a living worker lost its lease"
            )
            yield Complaint(what, row.number, attempt.worker, str(attempt))


def _failed(row: Row, runs: list[Run], evidence: Evidence) -> str | None:
    """What is wrong with its failure; None: nothing."""
    if row.max_attempts > 1:
        charged = sum(one.outcome in (*ERRORED, "lost") for one in row.attempts)
        return (
            None if charged >= row.max_attempts else f"it failed after {charged} errors and losses"
        )
    if not runs or runs[-1].how == "raised":
        return None
    at = float("inf") if row.finished is None else row.finished + SETTLE
    return (
        None
        if _after(runs[-1], at, row, evidence)
        else "it was interrupted, and nothing explains it"
    )


def _may_be_lost(attempt: Attempt, evidence: Evidence) -> bool:
    """Whether that worker was dead, or frozen, or its lease was lost by the server, when its jobs were taken."""
    life = evidence.lives.get(attempt.worker or "")
    if life is None:
        return False
    at = attempt.at + SETTLE
    if (life.killed or at) < at:
        return True
    # Reaped while it was frozen, or after an outage that began meanwhile.
    if any(
        begin <= at and unwritten(end, attempt.at, evidence)
        for begin, end in freezes(life, evidence.lease)
    ):
        return True
    if life.exited is not None and life.exited < at:
        # One that stops in order leaves nothing behind but what it has forgotten, the outcome having been lost.
        return bool(life.code) or evidence.crashed(
            life.exited - FORGOTTEN, life.exited + evidence.window
        )
    return lease_lost(life, at, evidence)
