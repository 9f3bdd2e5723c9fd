"""Search behind paused jobs: where a worker goes on to claim while a task or a tag is paused.

A claim reads the jobs of a queue in order and passes over each that is paused. A million of them in
front would cost every claim most of a second, on SQLite under the write lock. So a worker looks at
a bounded number of jobs at a time, and remembers for each level, the jobs of one priority of a
queue or of a concurrency key, the place up to which all were paused. It looks from there on, and
claims up to there.

A job may come in front of such a place later. This is how it is found:

- A new job, one that has become due, and a retry have the present as their due time, so they come
  behind it; one of another priority is in another level. The place is moved over `ROWS` jobs at
  once, not to the end of the level, so that transactions may commit a little later than others.
- What an operator resumes, updates or retries, and what a worker gives back at its end or loses:
  each look reads what is paused, the last action of an operator and the workers. If they differ, a
  second search goes from the start of each level up to its place, without a rest: as fast as a
  million jobs in a second. If they differ again meanwhile, another one follows.
- The rest (a job that Python code changes, a claim that a live worker gives back, a long
  transaction that commits late, a due time in the past): the second search starts over again and
  again, in a tenth of the time: of ten thousand jobs it finds one within a second, of a million
  within ten or so.
"""

import time
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection

from jobqueue.store.claims import Cursor
from jobqueue.store.lane_admission import Head
from jobqueue.store.paused import Level, Look, PausedJobs, Signs, before

ROWS = 10_000
"""Jobs that one step of a search passes over, in all levels."""
ROWS_MIN = 100
"""Jobs that it passes over in each level, however many these are."""
SHARE = 0.1  # of the time, at most, for second searches that nothing gave reason for
INTERVAL = 1.0  # seconds between the starts of two of them

REST_MAX, REST_SEARCHING = 5.0, 1.0
"""Seconds until a key or a limited queue is looked at again of which all seems paused."""

PLACES_MAX = 1000
"""Places that are kept of levels that a look has not asked for, as there are many queues."""

_NEVER = float("inf")


class PausedSearch:
    """One worker's places behind paused jobs. Used by the thread that claims."""

    def __init__(self, jobs: PausedJobs) -> None:
        self._jobs = jobs
        self._began_at = -_NEVER
        self.forget()

    def forget(self) -> None:
        """Forget all places: nothing is paused."""
        self._signs: Signs | None = None
        self._places: dict[Level, Cursor] = {}
        """Up to where all jobs of a level were paused. Other levels are searched from the start."""
        self._again: dict[Level, Cursor] = {}
        """How far the second search of a level has come."""
        self._again_at = -_NEVER
        self._urgent: set[Level] = set()
        """Those whose second search has a reason, so that it goes on without a rest."""
        self._late: set[Level] = set()
        """Those for which there was another reason since: it begins again when it has ended."""
        self._barren: set[Cursor] = set()
        """The places behind which the claims since the last look gave nothing."""
        self._levels: Sequence[Level] = ()
        """Those of the last search."""
        self.next_at = _NEVER
        """When to look again, by the monotonic clock, if nothing else gives reason to."""

    @property
    def is_active(self) -> bool:
        """True while something is paused."""
        return self._signs is not None

    def look(
        self, connection: Connection, queues: Sequence[str]
    ) -> tuple[dict[str, Cursor], dict[str, Cursor]]:
        """Return behind which place, and up to which, to claim in each queue.

        A queue is missing if it is paused or limited, or if only paused jobs were found in it.
        """
        looks = self.search(connection, queues)
        found = {level: _before(look.heads[0]) for level, look in looks.items() if look.heads}
        starts: dict[str, Cursor] = {}
        # The best priority of each queue; every second time the next one, if that gave nothing.
        for queue, priority in sorted(found, key=lambda at: (found[at] in self._barren, at)):
            starts.setdefault(queue, found[queue, priority])
        self._barren.clear()
        return starts, self._ends(connection, starts, found)

    def _ends(
        self, connection: Connection, starts: Mapping[str, Cursor], found: Mapping[Level, Cursor]
    ) -> dict[str, Cursor]:
        """Return up to which places to claim: not into a level that begins with paused jobs."""
        cursors = {(queue, place[0]): place for queue, place in starts.items()}
        ends = self._jobs.ahead(connection, cursors, _rows(starts))
        for level in self._levels:
            queue, priority = level
            is_behind = queue in starts and priority > starts[queue][0]
            if is_behind and (level in self._places or level not in found):
                ends[queue] = min(ends[queue], before(level))
        return ends

    def search(
        self, connection: Connection, names: Sequence[str], limit: int = 1
    ) -> dict[Level, Look]:
        """Return the first jobs that may start, up to `limit` of each level, as far as was seen."""
        began = time.monotonic()
        signs = self._jobs.signs(connection)  # Before looking: what comes later differs from them.
        self._levels = levels = self._jobs.levels(connection, names)
        self._forget_all_but(levels, names)
        self._plan_second_search(signs, levels, began)
        cursors = {level: self._places.get(level, before(level)) for level in levels}
        looks = self._jobs.look(connection, cursors, _rows(levels), limit)
        moved = _moved(looks)
        self._places |= moved
        if self._is_under_way(levels) and (self._hurries(levels) or began >= self._again_at):
            # Instead of what lies behind: a strict job between the two may not be overtaken.
            looks |= self._search_again(connection, levels, limit)
            self._again_at = time.monotonic() + (time.monotonic() - began) * (1 / SHARE - 1)
        self.next_at = time.monotonic() if moved else self._second_search_at(levels)
        return looks

    def rests(self) -> dict[str, float]:
        """Return by name when to look again behind the jobs that were passed over, if any were."""
        resting = dict.fromkeys((name for name, _ in self._places), REST_MAX)
        again = dict.fromkeys((name for name, _ in self._again), REST_SEARCHING)
        return resting | again | dict.fromkeys((name for name, _ in self._urgent), 0.0)

    def gave_nothing(self, cursor: Cursor) -> None:
        """Note that a claim from behind this place gave nothing: another transaction has it."""
        self._barren.add(cursor)

    def _plan_second_search(self, signs: Signs, levels: Sequence[Level], began: float) -> None:
        """Start the second search over if it is time.

        One that has a reason comes to its end first, whatever happens meanwhile: each batch of a
        bulk action is one more reason. Each level has its own: a key may wait long for its turn.
        """
        if signs != self._signs:
            self._late |= self._places.keys()
        self._signs = signs
        if searched := self._late - self._urgent:
            self._urgent |= searched
            self._late -= searched
        elif not self._is_under_way(levels) and began - self._began_at >= INTERVAL:
            searched = self._places.keys() & set(levels)
        else:
            return
        self._again |= {level: before(level) for level in searched}
        self._began_at = began

    def _is_under_way(self, levels: Sequence[Level]) -> bool:
        """Return whether the second search has not come to the places of all these levels.

        Others may never be asked for again: their queues are empty, or wait for their turn.
        """
        return not self._again.keys().isdisjoint(levels)

    def _hurries(self, levels: Sequence[Level]) -> bool:
        return not self._urgent.isdisjoint(levels)

    def _search_again(
        self, connection: Connection, levels: Sequence[Level], limit: int
    ) -> dict[Level, Look]:
        """Go on with the second search; return what was found by it in front of the places."""
        cursors = {level: self._again[level] for level in levels if level in self._again}
        looks = self._jobs.look(connection, cursors, _rows(levels), limit)
        moved, found = _moved(looks), {}
        for level, look in looks.items():
            place = self._places[level]
            if level in moved and moved[level] < place:
                self._again[level] = moved[level]
                continue
            del self._again[level]
            self._urgent.discard(level)
            if look.heads and _before(look.heads[0]) < place:
                self._places[level] = _before(look.heads[0])
                found[level] = look
        return found

    def _second_search_at(self, levels: Sequence[Level]) -> float:
        if self._is_under_way(levels):
            return time.monotonic() if self._hurries(levels) else self._again_at
        if not self._late.isdisjoint(levels):
            return time.monotonic()
        return self._began_at + INTERVAL if self._places else _NEVER

    def _forget_all_but(self, levels: Sequence[Level], queues: Sequence[str]) -> None:
        """Forget the levels that have no more jobs, and those that were not seen for long."""
        asked = set(queues) if len(self._places) <= 2 * len(levels) + PLACES_MAX else None
        for level in self._places.keys() - set(levels):
            if asked is None or level[0] in asked:
                del self._places[level]
                self._again.pop(level, None)
                self._urgent.discard(level)
                self._late.discard(level)


def _rows(levels: Collection[object]) -> int:
    """Return at how many jobs to look in each of some levels or queues."""
    return max(ROWS_MIN, ROWS // max(1, len(levels)))


def _before(head: Head) -> Cursor:
    return head.priority, head.run_at, head.id - 1


def _moved(looks: Mapping[Level, Look]) -> dict[Level, Cursor]:
    """Return the new places of the levels in which only paused jobs were seen."""
    return {level: look.last for level, look in looks.items() if look.last and not look.heads}
