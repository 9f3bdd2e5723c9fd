"""What the judge is shown: what handlers wrote down, what was done to whom and when, and what the database says.

Instants are seconds of CLOCK_BOOTTIME, which every process of a machine shares and nobody steps.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

Interval = tuple[float, float]


def boottime() -> float:
    """Now."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


STALL = 0.5  # seconds without a tick that a worker writes down


class Run(NamedTuple):
    """One entry into a handler. `number` is the producer's: a server that loses commits may give an id twice."""

    number: int
    job: int
    attempt: int
    fence: int
    worker: str
    pid: int
    claimed: float
    began: float
    ended: float | None
    how: str | None  # end, raised; None: it was cut off

    def __str__(self) -> str:
        end = "cut off" if self.ended is None else f"{self.how} at {self.ended:.2f}"
        return f"{self.worker} (pid {self.pid}) was claimed at {self.claimed:.2f}, began at {self.began:.2f}, attempt {self.attempt}, fence {self.fence}, {end}"


@dataclass
class Life:
    """One worker process: what was done to it, and when."""

    name: str
    started: float
    ready: float | None = None
    killed: float | None = None
    terminated: float | None = None
    again: float | None = None  # when it got its second signal
    exited: float | None = None
    code: int | None = None
    stopped: list[Interval] = field(default_factory=list)
    """When it stood still: SIGSTOP, or a machine that was too busy."""

    def __str__(self) -> str:
        facts = {
            "ready": self.ready,
            "killed": self.killed,
            "SIGTERM": self.terminated,
            "again": self.again,
            "exit": self.exited,
        }
        told = [f"{what} {at:.2f}" for what, at in facts.items() if at is not None]
        told += [f"stood still {a:.2f} to {b:.2f}" for a, b in merged(self.stopped)]
        code = "" if self.code is None else f", code {self.code}"
        return f"{self.name}: started {self.started:.2f}, {', '.join(told)}{code}"


class Enqueued(NamedTuple):
    """A job that the producer has an answer for."""

    number: int
    job: int
    kind: str
    at: float


class Attempt(NamedTuple):
    """A row of the attempts that ended other than by success."""

    fence: int
    worker: str | None
    outcome: str
    error: str | None
    at: float

    def __str__(self) -> str:
        error = f" ({self.error})" if self.error else ""
        return f"fence {self.fence}, {self.worker}: {self.outcome}{error} at {self.at:.2f}"


@dataclass
class Row:
    """A job as the database knows it at the end."""

    id: int
    number: int
    task: str
    state: str
    attempt: int
    max_attempts: int
    fence: int
    worker: str | None
    reason: str | None
    finished: float | None = None
    attempts: list[Attempt] = field(default_factory=list)

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return (
            f"id {self.id}, {self.task}, {self.state}{reason}, attempt {self.attempt} of {self.max_attempts}, fence {self.fence}, "
            f"worker {self.worker}, finished {'never' if self.finished is None else f'{self.finished:.2f}'}"
        )

    def ended(self, run: Run) -> Attempt | None:
        """The row of that run's claim, if it has one."""
        mine = [one for one in self.attempts if (one.fence, one.worker) == (run.fence, run.worker)]
        return mine[0] if mine else None


@dataclass
class Evidence:
    """Everything that happened."""

    lease: float
    lives: dict[str, Life]
    runs: dict[int, list[Run]]
    """By the producer's number, in the order of their beginnings."""
    crashes: list[float] = field(default_factory=list)
    """When the server crashed: the instant after which nothing was answered any more."""
    outages: list[Interval] = field(default_factory=list)
    """When nobody could write, whatever the reason."""
    window: float = 0.0
    """Seconds for which an answered commit may be lost by a crash."""

    def crashed(self, since: float, until: float) -> bool:
        """Whether the server crashed in that time."""
        return any(since <= at <= until for at in self.crashes)


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same instants, in intervals that do not touch."""
    done: list[Interval] = []
    for begin, end in sorted(intervals):
        if done and begin <= done[-1][1]:
            done[-1] = (done[-1][0], max(done[-1][1], end))
        else:
            done.append((begin, end))
    return done


def runs_of(
    lines: Iterable[list[object]],
) -> tuple[dict[int, list[Run]], dict[str, list[Interval]]]:
    """The handlers' log: each job's runs, and when each worker stood still.

    Lines are [begin | end | raised, number, job, attempt, fence, worker, pid, claimed, at] and ["stall", worker, from, to].
    """
    found: dict[int, list[Run]] = {}
    stalls: dict[str, list[Interval]] = {}
    for kind, *rest in lines:
        if kind == "stall":
            worker, begin, end = rest
            stalls.setdefault(worker, []).append((begin, end))
            continue
        *who, at = rest
        runs = found.setdefault(who[0], [])
        if kind == "begin":
            runs.append(Run(*who, at, None, None))
            continue
        # The same claim in the same process; the last of them that is still open.
        place = max(i for i, run in enumerate(runs) if list(run[:7]) == who and run.ended is None)
        runs[place] = runs[place]._replace(ended=at, how=kind)
    for runs in found.values():
        runs.sort(key=lambda run: run.began)
    return found, stalls
