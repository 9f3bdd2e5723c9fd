"""Switches of a queue: how many of its jobs run at once, how often they start, and fair shares."""

import json
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from jobqueue import options
from jobqueue.errors import ConfigurationError, InvalidOption, invalid
from jobqueue.records import in_largest_unit

COUNT_MAX = options.RUNNING_MAX
PERIOD_LEAST, PERIOD_MAX = 0.001, 366 * 86_400.0
_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
_BURST = ", burst "
_FORM = "write 100/minute, 5/30s or 10/5m; second, minute, hour and day are units"


class Queue(str):
    """The name of a declared queue, accepted wherever a queue's name is."""

    __slots__ = ()


class Rate(NamedTuple):
    """At most `starts` of jobs in `period` seconds, evenly spaced but for a burst (None: 1)."""

    starts: int
    period: float
    burst: int | None = None

    @classmethod
    def of(cls, value: object, burst: object = None) -> Self:
        """Parse a text like `100/minute` or `5/30s`. Raises InvalidOption."""
        count, slash, unit = value.partition("/") if isinstance(value, str) else ("", "", "")
        if not slash or not (count.isascii() and count.isdigit()) or len(count) > 15:  # noqa: PLR2004
            raise invalid("rate", f"{str(value)[:40]!r} is not a rate; {_FORM}", value)
        try:
            text = f"1{unit}" if unit[:1].isalpha() else unit
            period = _UNITS.get(unit) or options.seconds(
                text, "rate", least=PERIOD_LEAST, most=PERIOD_MAX
            )
        except InvalidOption as error:
            detail = "" if unit[:1].isalpha() else f" ({str(error).removeprefix('rate: ')})"
            raise invalid(
                "rate", f"{str(value)[:40]!r} is not a rate{detail}; {_FORM}", value
            ) from None
        starts = options.whole(int(count), "rate", 1, COUNT_MAX)
        ahead = None if burst is None else options.whole(burst, "burst", 1, COUNT_MAX)
        return cls(starts, period, ahead)

    def to_text(self) -> str:
        """Return the text that `of` parses, without the burst."""
        unit = next((name for name, seconds in _UNITS.items() if seconds == self.period), None)
        return f"{self.starts}/{unit or in_largest_unit(self.period)}"

    def __str__(self) -> str:
        return self.to_text() + (f"{_BURST}{self.burst}" if self.burst else "")

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `str` of a rate is, with its burst. Raises ValueError."""
        rate, _, burst = text.partition(_BURST)
        return cls.of(rate, int(burst) if burst else None)


class QueueSwitches(NamedTuple):
    """What an app declares of a queue's jobs that run; the columns of the queues table."""

    max_running: int | None = None
    rate_count: int | None = None
    rate_period: float | None = None
    rate_burst: int | None = None
    fair: int | None = None

    @classmethod
    def of(cls, limit: object, rate: object, burst: object, fair: object) -> Self:
        """Check what `jobs.queue(…)` is given. Raises InvalidOption."""
        if rate is None and burst is not None:
            raise invalid("burst", "it is how far a rate may run ahead; give a rate too", burst)
        starts, period, ahead = (None, None, None) if rate is None else Rate.of(rate, burst)
        running = None if limit is None else check_limit(limit)
        shares = 1 if options.flag(fair, "fair") else None
        return cls(running, starts, period, ahead, shares)

    def to_text(self) -> str | None:
        """Return the JSON that is stored beside the switches; None where nothing is declared."""
        given = {name: value for name, value in self._asdict().items() if value is not None}
        return json.dumps(given) if given else None

    def changes(self, declared: str | None) -> dict[str, Any]:
        """Return the columns to write, where `declared` is the JSON of the last declaration.

        What is declared as before is left as it is in the database: an operator may have changed
        it since. The three columns of a rate are one switch.
        """
        before = QueueSwitches(**json.loads(declared or "{}"))
        own = self._asdict()
        changes = {name: own[name] for name, old in before._asdict().items() if own[name] != old}
        if changes.keys() & set(_RATE):
            changes |= {name: own[name] for name in _RATE}
        return changes


class DeclaredQueues(dict[str, QueueSwitches]):
    """The switches of the queues that a program declares, by name."""

    def __init__(self) -> None:
        super().__init__()
        self._given: dict[str, tuple[dict[str, Any], str]] = {}

    def declare(
        self, name: str, switches: QueueSwitches, bound: Mapping[str, Any], place: str
    ) -> None:
        """Add a queue; `bound` is what else was given, and only compared.

        Raises ConfigurationError, with both places, if it was declared otherwise.
        """
        columns = switches._asdict()
        given = {switch: value_of(switch, columns) for switch in ("limit", "rate", "fair")}
        given |= bound
        there = self._given.setdefault(name, (given, place))
        differ = [key for key, value in given.items() if there[0].get(key, value) != value]
        if differ:
            sides = (
                f"{', '.join(f'{key}={values[key]!r}' for key in differ)} ({where})"
                for values, where in (there, (given, place))
            )
            raise ConfigurationError(
                f"two declarations of queue {name!r} differ: {', '.join(sides)}; declare it once",
                field="name",
                value=name,
            )
        self[name] = switches


def place_of_caller() -> str:
    """Return `file:line` of the code that has called the function which asks."""
    frame = sys._getframe(2)  # noqa: SLF001 - inspect.stack() reads the sources.
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


_RATE = ("rate_count", "rate_period", "rate_burst")


def columns_of(switch: str, value: Any) -> dict[str, Any]:
    """Return the columns of a switch, `limit`, `rate` or `fair`, for its JSON value.

    It is the value that the audit has: a rate is the text that `str` makes of it. Raises ValueError
    for one that plain SQL has written there.
    """
    if switch == "limit":
        return {"max_running": None if value is None else check_limit(value)}
    if switch == "fair":
        return {"fair": 1 if value else None}
    return dict(zip(_RATE, (None,) * 3 if value is None else Rate.read(value), strict=True))


def value_of(switch: str, columns: Mapping[str, Any]) -> Any:
    """Return the JSON value of a switch for its columns."""
    if switch == "limit":
        return columns["max_running"]
    if switch == "fair":
        return bool(columns["fair"])
    rate = rate_of(columns)
    return None if rate is None else str(rate)


def rate_of(columns: Mapping[str, Any]) -> Rate | None:
    """Return the rate of a row. The period is a second where plain SQL has left it out."""
    count, period, burst = (columns[name] for name in _RATE)
    return None if count is None else Rate(count, period or 1.0, burst)


def check_limit(value: object) -> int:
    """Check how many jobs may run at once; 0 is a pause. Raises InvalidOption."""
    return options.whole(value, "limit", 0, COUNT_MAX)
