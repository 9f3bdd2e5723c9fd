"""Cron expressions and intervals: when the runs of a schedule are, as pure functions of time.

cronsim parses and searches. It is given fields for which it treats clock changes by our rule: what
runs in every hour follows real time; any other wall time gives one run, whatever the clocks do.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from itertools import takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from jobqueue.errors import InvalidOption, invalid
from jobqueue.printable_text import did_you_mean
from jobqueue.records import counted, in_largest_unit, lasting

LENGTH_MAX = 100
FIELDS = 5
INTERVAL_MAX = 10 * 366 * 86_400
RANGES = {
    "minute": "* or 0 to 59",
    "hour": "* or 0 to 23",
    "day-of-month": "*, 1 to 31 as the months have, or L for the last",
    "month": "* or 1 to 12, or JAN to DEC",
    "day-of-week": "* or 0 to 7, or SUN to SAT",
}
"""What a field may be, by cronsim's name of it, in the order of an expression."""
NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_ANY = datetime(2024, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_WINDOW, _WINDOW_GROWTH = timedelta(hours=1), 8


class Run(NamedTuple):
    """One run of a schedule, with the offset from UTC that its zone has then."""

    at: datetime
    note: str | None = None
    """What a clock change did to it: moved it, or let its wall time occur twice."""


@dataclass(frozen=True)
class Cron:
    """A cron expression of five fields in a time zone. Made by `cron()`, which checks it."""

    expression: str
    tz: str = "UTC"

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the runs later than an instant, in UTC, each later than the one before.

        A wall time that the clocks skip runs once, at the first instant after the gap; one that
        occurs twice runs the first time. An expression that runs in every hour follows real time.
        """
        fields, last = _fields(self.expression), instant.astimezone(UTC)
        for found in CronSim(fields.text, instant.astimezone(ZoneInfo(self.tz))):
            run = found.astimezone(UTC)
            # In the second pass of an hour cronsim first gives runs of the first.
            if run > last and found.minute in fields.minutes:
                yield run
                last = run

    def next_after(self, instant: datetime) -> datetime:
        """Return the first run later than an instant. Raises InvalidOption if there is none."""
        run = next(self.after(instant), None)
        if run is None:
            raise _refused(self.expression, "it never runs")
        return run

    def latest(self, first: datetime, until: datetime) -> datetime:
        """Return the last run in [first, until]; `first` is a run.

        Looks into growing windows before `until`: a schedule may have missed millions of runs.
        """
        window, start = _FIRST_WINDOW, until
        while start > first:
            start = max(first, until - window)
            runs = list(takewhile(lambda run: run <= until, self.after(start)))
            if runs:
                return runs[-1]
            window *= _WINDOW_GROWTH
        return first

    def preview(self, start: datetime, until: datetime) -> Iterator[Run]:
        """Yield the runs in (start, until], and mark those that a clock change concerns."""
        zone = ZoneInfo(self.tz)
        for run in takewhile(lambda run: run <= until, self.after(start)):
            local = run.astimezone(zone)
            yield Run(local, self._note(local))

    def _note(self, run: datetime) -> str | None:
        fields, skipped = _fields(self.expression), _wall_before(run)
        if fields.every_hour:
            return None
        if skipped is not None:
            # Without a zone cronsim knows no clock changes: these are the nominal wall times.
            nominal = next(CronSim(fields.text, skipped - _SECOND), None)
            if nominal is not None and nominal < run.replace(tzinfo=None):
                return f"moved: {nominal:%H:%M} is skipped by a clock change"
        if run.replace(fold=1).utcoffset() != run.utcoffset():
            return f"once: {run:%H:%M} occurs twice, the first one counts"
        return None


@dataclass(frozen=True)
class Every:
    """An interval in whole seconds, counted from 1970-01-01 in UTC. Made by `every()`."""

    seconds: int

    @property
    def text(self) -> str:
        """The interval with the largest unit that fits: `5m`, `90s`, `2d`."""
        return in_largest_unit(self.seconds)

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the runs later than an instant, in UTC."""
        run = self._until(instant)
        while True:
            run += timedelta(seconds=self.seconds)
            yield run

    def next_after(self, instant: datetime) -> datetime:
        """Return the first run later than an instant."""
        return next(self.after(instant))

    def latest(self, first: datetime, until: datetime) -> datetime:
        """Return the last run in [first, until]; `first` is a run."""
        return max(first, self._until(until))

    def preview(self, start: datetime, until: datetime) -> Iterator[Run]:
        """Yield the runs in (start, until]; no clock change concerns them."""
        return (Run(run) for run in takewhile(lambda run: run <= until, self.after(start)))

    def _until(self, instant: datetime) -> datetime:
        """Return the last run at or before an instant."""
        interval = timedelta(seconds=self.seconds)
        return _EPOCH + (instant - _EPOCH) // interval * interval


Timing = Cron | Every


def cron(expression: str, *, tz: str = "UTC") -> Cron:
    """Run at the times of a cron expression: minute, hour, day of month, month, day of week.

    Also @hourly, @daily, @weekly, @monthly and @yearly. `tz` is an IANA time zone, such as
    `Europe/Zurich`. Raises InvalidOption, also for an expression that never runs.
    """
    if not isinstance(expression, str):
        raise _refused(expression, "it is not text")
    if len(expression) > LENGTH_MAX:
        raise _refused(
            expression, f"it has {len(expression):,} characters, at most {LENGTH_MAX} are allowed"
        )
    words = expression.split()
    plain = " ".join(words)
    if plain.startswith("@") and plain.lower() not in NAMED:
        raise _refused(expression, f"of the names there are {', '.join(NAMED)}")
    count = len(NAMED.get(plain.lower(), plain).split())
    if count != FIELDS:
        hint = "; for seconds use every(seconds=…)" if count == FIELDS + 1 else ""
        there = counted(count, "field")
        raise _refused(expression, f"it has {there}, not 5: minute hour day month weekday{hint}")
    known = _zones()
    if not isinstance(tz, str) or tz not in known:
        hint = did_you_mean(str(tz)[:LENGTH_MAX], known) or "; write one like Europe/Zurich"
        raise invalid("tz", f"{_shown(tz)} is not a known time zone{hint}", tz)
    try:
        CronSim(NAMED.get(plain.lower(), plain), _ANY)
    except CronSimError as error:
        raise _refused(expression, _wrong_field(words, str(error))) from None
    made = Cron(plain.lower() if plain.startswith("@") else plain, tz)
    made.next_after(_ANY)
    return made


def every(
    *, weeks: float = 0, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
) -> Every:
    """Run at a fixed interval, the sum of what is given, at the same instants on all hosts.

    It is counted from 1970-01-01 00:00 in UTC: `every(minutes=5)` runs at :00, :05, :10. Whole
    seconds, from 1 s to ten years. Raises InvalidOption.
    """
    given = {"weeks": weeks, "days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
    for unit, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= INTERVAL_MAX or not math.isfinite(value):
            raise invalid(
                "every", f"{unit}={_shown(value)} is not a number from 0 to {INTERVAL_MAX:,}", value
            )
    total = timedelta(**given).total_seconds()
    if not 1 <= total <= INTERVAL_MAX or total != int(total):
        raise invalid(
            "every",
            f"{lasting(total)} is not an interval of whole seconds, at least 1 s and at "
            f"most {lasting(INTERVAL_MAX)}",
            total,
        )
    return Every(int(total))


def check_timing(value: object) -> Timing | None:
    """Raise InvalidOption unless the value was made by `cron()` or `every()`, or is None."""
    if value is not None and not isinstance(value, Cron | Every):
        raise invalid(
            "schedule",
            f"{_shown(value)}: write cron('0 3 * * *', tz='Europe/Zurich') or every(minutes=5)",
            value,
        )
    return value


class _Fields(NamedTuple):
    """What cronsim is given for an expression, so that it treats clock changes by our rule.

    It decides by how a field begins: with a star in the minute or the hour, it follows real time.
    """

    text: str
    every_hour: bool
    minutes: frozenset[int]
    """Runs at other minutes are to be left out."""


@cache
def _fields(expression: str) -> _Fields:
    plain = NAMED.get(expression, expression)
    parsed = CronSim(plain, _ANY)
    minutes = frozenset(parsed.minutes)
    minute, hour, *days = plain.split()
    if len(parsed.hours) == 24:  # noqa: PLR2004 - hours of a day
        # With one minute cronsim jumps an hour, past the half hour that Lord Howe repeats.
        more = {*minutes, (min(minutes) + 1) % 60} if len(minutes) == 1 else minutes
        return _Fields(" ".join([",".join(map(str, more)), "*", *days]), True, minutes)
    minute, hour = (
        ",".join(f"{least_to_most}{part[1:]}" if part[:1] == "*" else part for part in parts)
        for parts, least_to_most in ((minute.split(","), "0-59"), (hour.split(","), "0-23"))
    )
    return _Fields(" ".join([minute, hour, *days]), False, frozenset(range(60)))


@cache
def _zones() -> frozenset[str]:
    """Return the IANA zones. What a system adds, such as `localtime`, differs between hosts."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text("utf-8").split())


def _wall_before(run: datetime) -> datetime | None:
    """Return the first wall time that the clocks skipped just before a run, or None."""
    before = (run.astimezone(UTC) - _SECOND).astimezone(run.tzinfo)
    wall = before.replace(tzinfo=None) + _SECOND
    return wall if wall < run.replace(tzinfo=None) else None


def _wrong_field(words: Sequence[str], error: str) -> str:
    """Return which field is wrong, and what it may be. cronsim names it only: "Bad minute"."""
    said = error[:1].lower() + error[1:]
    name = said.removeprefix("bad ")
    if name not in RANGES:
        return said
    field = _shown(words[[*RANGES].index(name)])
    return f"{said}: {field} is not a valid value, range or step; write {RANGES[name]}"


def _refused(expression: object, why: str) -> InvalidOption:
    return invalid("cron", f"{_shown(expression)}: {why}", expression)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LENGTH_MAX // 2 else text[: LENGTH_MAX // 2] + "…"
