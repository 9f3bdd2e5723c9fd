"""The shared poll: what upkeep asks the database every second, asked once for all its services."""

from collections.abc import Callable

from sqlalchemy import Connection

from jobqueue.records import Due, PollResult
from jobqueue.store.database import Store
from jobqueue.store.leases import Leases
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.process_identity import Identity, boottime

POLL_INTERVAL = 0.9
"""Seconds between two polls, so that each rescan of the claimer, a second apart, can carry one."""
FRESH_FOR = 0.25  # seconds for which an answer may be used
SLACK = 0.1  # seconds that a service waits for somebody else's poll


def with_slack(rest: float) -> float:
    """Return the seconds between polls, and some more where others may poll first."""
    return rest + SLACK if rest >= POLL_INTERVAL else rest


class SharedPoll:
    """One transaction a second for the rescan, the reaper and the scheduler of an idle worker.

    Who polls wakes the others. The claimer's rescan is a transaction anyway; where none takes
    place, the first service that needs an answer polls by itself. May be used from any thread.
    """

    def __init__(self, store: Store, leases: Leases, inflight: InFlight, me: Identity) -> None:
        self._store = store
        self._leases = leases
        self._inflight = inflight
        self._me = me
        self._subscribers: dict[str, Callable[[], None]] = {}
        self._on_wakeup: list[Callable[[], None]] = []
        self._invalidated_at = self._told_at = float("-inf")
        self._latest: tuple[float, PollResult] | None = None

    def subscribe(self, name: str, wake: Callable[[], None], *, on_wakeup: bool = False) -> None:
        """Wake this service after polls of others; `on_wakeup`: after `invalidate()`, too."""
        self._subscribers[name] = wake
        if on_wakeup:
            self._on_wakeup.append(wake)

    def invalidate(self) -> None:
        """Discard what was seen before: something was written."""
        self._invalidated_at = boottime()
        for wake in self._on_wakeup:
            wake()

    def poll_within(self, connection: Connection) -> None:
        """Poll within the rescan's transaction, if it is time."""
        if self._is_time():
            self._poll_leases(connection, by="")

    def poll(self, name: str, after: float) -> tuple[float, PollResult]:
        """Return when the latest poll began, and what it saw; poll unless it is fresh and newer."""
        latest = self._fresh(after)
        if latest is not None:
            return latest
        with self._store.read() as connection:
            return self._poll_leases(connection, by=name)

    def poll_due(self, name: str, after: float) -> tuple[float, Due]:
        """Return when a poll began, and in how many seconds jobs were due or expired then.

        While jobs come and go, this is called many times a second: one statement of the poll.
        """
        latest = self._fresh(after)
        if latest is not None:
            return latest[0], latest[1].due
        with self._store.read() as connection:
            if self._is_time():
                began, polled = self._poll_leases(connection, by=name)
                return began, polled.due
            began = boottime()
            return began, self._leases.poll_due(connection)

    def _fresh(self, after: float) -> tuple[float, PollResult] | None:
        latest, after = self._latest, max(after, self._invalidated_at)
        if latest is not None and latest[0] > after and boottime() - latest[0] < FRESH_FOR:
            return latest
        return None

    def _is_time(self) -> bool:
        return self._latest is None or boottime() - self._latest[0] >= POLL_INTERVAL

    def _poll_leases(self, connection: Connection, by: str) -> tuple[float, PollResult]:
        began, worker = boottime(), self._inflight.lease.worker
        own = None if worker is None else worker.id
        polled = self._leases.poll(connection, own, self._me.boot_id, self._me.pid_namespace)
        if own is not None:
            self._inflight.contention.only_worker = not polled.leases
        self._latest = result = (began, polled)
        if began - self._told_at >= POLL_INTERVAL:  # A service that polls more often does so alone.
            self._told_at = began
            for name, wake in self._subscribers.items():
                if name != by:
                    wake()
        return result
