"""Schedules as they are stored: what code declares and operators change, and when they ran."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, get_args

from jobqueue.literal_types import CatchUp, Overlap
from jobqueue.schedules.timing import Every, Timing, cron, every

CATCH_UPS: tuple[CatchUp, ...] = get_args(CatchUp)
OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)

CODE, OPERATOR = "code", "operator"

LATE = timedelta(seconds=60)
"""With catch_up="none" a tick that is handled later than this counts as missed."""


@dataclass(frozen=True)
class Definition:
    """The columns of a schedule that say what it does, as they are stored."""

    task: str
    kind: str
    """`cron` or `every`."""
    expression: str
    """The fields of cron, or the seconds of an interval."""
    tz: str | None
    args: str
    """JSON, as in a job."""
    options: str | None
    """A JSON object: the options of its jobs, but for those that are the defaults."""
    catch_up: CatchUp
    overlap: Overlap

    @property
    def timing(self) -> Timing:
        """When it runs. Raises InvalidOption for a row that plain SQL has written, or a zone that
        this host does not know.
        """
        if self.kind == "cron":
            return cron(self.expression, tz=self.tz or "UTC")
        return every(seconds=int(self.expression) if self.expression.isdecimal() else -1)

    def runs_like(self, other: "Definition") -> bool:
        """Return whether both have the same ticks."""
        return (self.kind, self.expression, self.tz) == (other.kind, other.expression, other.tz)

    def describe(self) -> str:
        """Return when it runs, in one phrase, also for a row that plain SQL has written."""
        if self.kind == "cron":
            return f"cron {self.expression} {self.tz}"
        seconds = self.expression
        return f"every {Every(int(seconds)).text if seconds.isdecimal() else seconds}"

    def to_text(self) -> str:
        """Return canonical JSON: equal texts are equal definitions."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_text(text: str) -> "Definition":
        """Read what `to_text` wrote."""
        return Definition(**json.loads(text))


@dataclass(frozen=True)
class ScheduleRecord:
    """One row of the schedules table. Instants are in UTC."""

    name: str
    definition: Definition
    source: str
    """Who made it: `code` or `operator`."""
    declared: str | None
    """What the code declares, as `Definition.to_text`; None: it declares nothing."""
    paused_at: datetime | None
    paused_by: str | None
    next_at: datetime | None
    nominal_at: datetime | None
    """The last tick that is done with, whether it made a job or not."""
    last_job_id: int | None
    orphaned_at: datetime | None
    """Since when the code has not declared it any more."""
    orphaned: bool = False
    """True if the code has not declared it any more, or no live worker knows its task: no ticks."""

    @property
    def differs(self) -> bool:
        """True if an operator has changed what the code declares."""
        return self.declared not in (None, self.definition.to_text())

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as `--json` and the HTTP API give it."""
        definition = self.definition
        arguments, options = _read(definition.args), _read(definition.options or "{}")
        return {
            "name": self.name,
            "task": definition.task,
            "args": arguments.get("args"),
            "kwargs": arguments.get("kwargs"),
            "options": options,
            "cron": definition.expression if definition.kind == "cron" else None,
            "tz": definition.tz,
            "every": int(definition.expression) if definition.expression.isdecimal() else None,
            "catch_up": definition.catch_up,
            "overlap": definition.overlap,
            "source": self.source,
            "differs": self.differs,
            "orphaned": self.orphaned,
            "paused_at": _iso(self.paused_at),
            "paused_by": self.paused_by,
            "next_at": _iso(self.next_at),
            "last_at": _iso(self.nominal_at),
            "last_job_id": self.last_job_id,
        }


def _read(text: str) -> dict[str, Any]:
    """Read a JSON object; an empty one where plain SQL has written something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


class Tick(NamedTuple):
    """What is to be done at a due tick."""

    runs: list[datetime]
    """The nominal instants that get a job."""
    handled: datetime
    """The last nominal instant that is done with."""
    next_at: datetime


def tick(timing: Timing, due: datetime, present: datetime, catch_up: CatchUp, most: int) -> Tick:
    """Decide about the ticks from `due`, the first one that is not handled, to `present`.

    "latest" runs the last one of them, "all" each (at most `most` now, the others in a next tick),
    "none" the last one unless it is late.
    """
    if catch_up == "all":
        runs = [due]
        for run in timing.after(due):
            if run > present or len(runs) >= most:
                return Tick(runs, runs[-1], run)
            runs.append(run)
    last = timing.latest(due, present)
    missed = catch_up == "none" and present - last > LATE
    return Tick([] if missed else [last], last, timing.next_after(last))
