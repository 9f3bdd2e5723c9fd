"""Paused jobs in lanes: what a worker finds behind them, in a queue with a limit and in a key."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from jobqueue.store.claims import Cursor
from jobqueue.store.database import Store
from jobqueue.store.lane_admission import Head
from jobqueue.store.paused import Level, Look, PausedJobs
from jobqueue.store.paused_search import PausedSearch
from jobqueue.store.sql.paused import Searched


class Seen(NamedTuple):
    """The first jobs of a lane that may start, as far as a bounded look saw them."""

    heads: Sequence[Head] = ()
    rest: float | None = None
    """Seconds until it is to be looked at again, if none of these is left; None: all was seen."""
    last: Cursor | None = None
    """The place of the last job that was seen, if there may be more behind it."""


class PausedLanes:
    """One worker's searches behind the paused jobs of lanes. Used by one thread at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._limited = PausedSearch(PausedJobs(store, Searched.LIMITED))
        self._keys: dict[str, PausedSearch] = {}
        """By queue."""

    def filled(self, connection: Connection, queues: Sequence[str]) -> tuple[list[str], float]:
        """Return the limited queues in which a job without a key is found that may start.

        And when to look again, by the monotonic clock.
        """
        looks = self._limited.search(connection, queues)
        filled = {queue: look for (queue, _), look in looks.items() if look.heads}
        return list(filled), self._limited.next_at

    def of_queue(self, connection: Connection, queue: str, limit: int) -> Seen:
        """Return the first jobs of a limited queue that have no key."""
        looks = self._limited.search(connection, [queue], limit)
        return _by_name([queue], looks, self._limited.rests(), limit)[queue]

    def of_keys(
        self, connection: Connection, queue: str, keys: Iterable[str], limit: int
    ) -> dict[str, Seen]:
        """Return the first jobs of concurrency keys in a queue."""
        if queue not in self._keys:
            jobs = PausedJobs(self._store, Searched.KEYS, queue)
            self._keys[queue] = PausedSearch(jobs)
        search, names = self._keys[queue], sorted(keys)
        looks = search.search(connection, names, limit)
        return _by_name(names, looks, search.rests(), limit)


def _by_name(
    names: Iterable[str], looks: Mapping[Level, Look], rests: Mapping[str, float], limit: int
) -> dict[str, Seen]:
    """Put the levels of each name together, as far as nothing between them was left out."""
    heads: dict[str, list[Head]] = {name: [] for name in names}
    rest: dict[str, float | None] = {name: rests.get(name) for name in names}
    last: dict[str, Cursor] = {}
    for name, priority in sorted(looks):
        look = looks[name, priority]
        if name in last:
            continue
        heads[name] += look.heads
        if look.last is not None:  # There may be more in this level.
            last[name], rest[name] = look.last, 0.0
    return {name: Seen(found[:limit], rest[name], last.get(name)) for name, found in heads.items()}
