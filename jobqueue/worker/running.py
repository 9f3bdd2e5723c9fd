"""The attempts that a worker runs, and what they have reported."""

import time
from collections.abc import Mapping, Sequence

from jobqueue.records import Outcome
from jobqueue.store.sql.rows import Progress
from jobqueue.worker.capacity import Key
from jobqueue.worker.handler.context import Attempt


class Running:
    """The attempts of a worker that run, or whose child process starts, and what they reported.

    A step that belongs together with another one is taken under the lock of `InFlight`.
    """

    def __init__(self) -> None:
        self._attempts: dict[Key, Attempt] = {}
        self._starting: dict[Key, Attempt] = {}
        self.attempts: Mapping[Key, Attempt] = self._attempts
        """Attempts whose handler runs."""
        self.starting: Mapping[Key, Attempt] = self._starting
        """Attempts that have not begun: their child process is not ready for them."""
        self.begun = 0
        """Handlers that were entered so far."""
        self._busy = 0.0
        self._progress: dict[Key, Progress] = {}
        """What handlers reported last and no heartbeat has written."""

    def find(self, key: Key) -> Attempt | None:
        """The attempt that runs or is about to."""
        return self._attempts.get(key) or self._starting.get(key)

    def start(self, context: Attempt) -> None:
        """Add an attempt whose child process is about to be made ready."""
        self._starting[context.key] = context

    def begin(self, context: Attempt) -> None:
        """Add an attempt whose handler is about to be entered."""
        self._attempts[context.key] = context
        self.begun += 1
        self._starting.pop(context.key, None)

    def end(self, context: Attempt, duration: float | None) -> bool:
        """Remove an attempt that filled a thread for `duration` s; False if it is gone already."""
        if self._attempts.pop(context.key, None) is None:
            return False
        if not context.is_coroutine:
            self._busy += duration or 0.0
        if context.reported is not None:
            self._keep_progress(context)
        return True

    def withdraw(self, key: Key) -> bool:
        """Remove an attempt that does not begin; False if it is gone already."""
        return self._starting.pop(key, None) is not None

    def drop(self, key: Key) -> bool:
        """Remove an attempt that has failed outside of its handler; True if it had begun."""
        self._starting.pop(key, None)
        return self._attempts.pop(key, None) is not None

    def end_all(self) -> list[Attempt]:
        """Remove every attempt whose handler runs, and return them."""
        contexts = list(self._attempts.values())
        self._attempts.clear()
        self._busy += _busy(contexts)
        for context in contexts:
            if context.reported is not None:
                self._keep_progress(context)
        return contexts

    def withdraw_all(self) -> list[Attempt]:
        """Remove every attempt that has not begun, and return them."""
        contexts = list(self._starting.values())
        self._starting.clear()
        return contexts

    def busy_seconds(self) -> float:
        """Seconds that handlers have filled threads so far, those that still run included."""
        return self._busy + _busy(list(self._attempts.values()))

    def progress_of(self, outcomes: Sequence[Outcome]) -> list[Progress]:
        """What the handlers of these jobs reported last."""
        if not self._progress:
            return []
        keys = [(outcome.claim.id, outcome.claim.fence) for outcome in outcomes]
        return [self._progress[key] for key in keys if key in self._progress]

    def forget_progress(self, outcomes: Sequence[Outcome]) -> None:
        """Forget what was reported for these claims: it is written, or nobody wants it."""
        if self._progress:
            for outcome in outcomes:
                self._progress.pop((outcome.claim.id, outcome.claim.fence), None)

    def _keep_progress(self, context: Attempt) -> None:
        if (said := context.unwritten_progress()) is not None:
            self._progress[context.key] = said


def _busy(running: list[Attempt]) -> float:
    """Seconds that these handlers have filled slots."""
    present = time.perf_counter()
    return sum(present - context.began for context in running if not context.is_coroutine)
