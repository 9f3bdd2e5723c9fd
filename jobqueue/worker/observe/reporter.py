"""The reporter: logs this worker's figures since the last report, with advice."""

import time
from collections.abc import Callable

from jobqueue.loggers import get_logger
from jobqueue.records import counted
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.observe.metrics import Samples, StatsWindow, Window, advise
from jobqueue.worker.service_thread import Service

report_log = get_logger("jobqueue.report")

WAITING_MAX = 10_000
"""Waiting jobs are counted up to this number."""
PERCENTILE = 0.95


IDLE_REPORT_INTERVAL = 300.0
"""Seconds between two reports while the worker is idle and no figure changes."""


class Reporter(Service):
    """Logs a report at each interval; while the worker is idle, only if a figure has changed."""

    def __init__(
        self,
        inflight: InFlight,
        reader: StatsWindow,
        interval: float,
        waiting: Callable[[int], int],
    ) -> None:
        super().__init__("reporter")
        self._inflight = inflight
        self._reader = reader
        self._interval = interval
        self._waiting = waiting
        self._due = time.monotonic() + interval
        self._waited = 0
        self._reported_at = time.monotonic()
        self._reported = self._state(0)

    def tick(self) -> float:
        """Report on the time since the last report, if the interval is over."""
        rest = self._due - time.monotonic()
        if rest <= 0:
            self._due = time.monotonic() + self._interval
            waiting = self._waiting(WAITING_MAX)
            period = self._reader.take()
            state = self._state(waiting)
            busy = self._inflight.running or period.whole.processed
            is_due = time.monotonic() - self._reported_at >= IDLE_REPORT_INTERVAL
            if busy or state != self._reported or is_due:
                self._reported, self._reported_at = state, time.monotonic()
                self._report(period, waiting)
            self._waited = waiting
            rest = self._interval
        return max(0.01, rest)

    def _state(self, waiting: int) -> tuple[int, ...]:
        """Return the figures whose change is worth a report of an idle worker."""
        inflight = self._inflight
        return inflight.capacity.threads, inflight.processed, waiting

    def _report(self, period: Window, waiting: int) -> None:
        inflight, whole = self._inflight, period.whole
        figures = {
            "event": "report",
            "seconds": round(period.seconds, 3),
            "processed": whole.processed,
            "errored": whole.errored,
            "failed": whole.failed,
            "snoozed": whole.snoozed,
            "running": len(inflight.running),
            "slots": inflight.capacity.threads,
            "waiting": waiting,
            "processed_in_all": inflight.processed,
        }
        report_log.info("%s", self._line(period, waiting), extra=figures)
        advice = advise(period, waiting=waiting, waited_before=self._waited)
        if advice is not None:
            report_log.warning("%s", advice, extra={"event": "advice"})

    def _line(self, period: Window, waiting: int) -> str:
        inflight, whole = self._inflight, period.whole
        slots = f"{len(inflight.running)} running of {inflight.capacity.threads}"
        rate = whole.processed / max(period.seconds, 1e-9)
        words = [
            f"{counted(whole.processed, 'job')} in {_short(period.seconds)} ({rate:.1f}/s)",
            f"{whole.errored:,} errored",
            *(f"{count:,} failed" for count in [whole.failed] if count),
            *(f"{count:,} snoozed" for count in [whole.snoozed] if count),
            f"{slots} ({period.utilisation:.0%} busy)",
            f"{'over ' if waiting >= WAITING_MAX else ''}{waiting:,} waiting",
        ]
        if whole.processed:
            took, waited = whole.duration / whole.processed, whole.wait / whole.processed
            words.append(f"took {_times(took, whole.durations)}")
            words.append(f"waited {_times(waited, whole.waits)}")
        return f"{', '.join(words)}; {inflight.processed:,} in all"


def _times(average: float, samples: Samples) -> str:
    return f"{_short(average)} (p95 {_short(samples.percentile(PERCENTILE) or 0.0)})"


def _short(seconds: float) -> str:
    number, unit = (1000 * seconds, "ms") if seconds < 0.9995 else (seconds, "s")  # noqa: PLR2004
    return f"{number:.3g} {unit}" if number < 999.5 else f"{number:,.0f} {unit}"  # noqa: PLR2004
