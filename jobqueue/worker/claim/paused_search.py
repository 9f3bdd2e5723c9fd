"""Search behind paused jobs: where a worker goes on to claim while a task or a tag is paused.

A claim reads the jobs of a queue in order and passes over each that is paused. A million of them in
front would cost every claim most of a second, on SQLite under the write lock. So a worker looks at
a bounded number of jobs at a time, and remembers for each level, the jobs of one priority of a
queue, the place up to which all were paused. It looks from there on, and claims up to there.

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
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from jobqueue.store.claims import Cursor
from jobqueue.store.paused import Level, PausedJobs, Signs, before

ROWS = 10_000
"""Jobs that one look passes over, in all levels."""
ROWS_MIN = 100
"""Jobs that it passes over in each level, however many these are."""
SHARE = 0.1  # of the time, at most, for second searches that nothing gave reason for
INTERVAL = 1.0  # seconds between the starts of two of them

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
        self._hurries = False
        """The second search has a reason, and goes on without a rest."""
        self._has_reason = False
        """There was another reason since it began: it begins again when it has ended."""
        self._barren: set[Cursor] = set()
        """The places behind which the claims since the last look gave nothing."""
        self.next_at = _NEVER
        """When to look again, by the monotonic clock, if nothing else gives reason to."""

    @property
    def is_active(self) -> bool:
        """True while something is paused."""
        return self._signs is not None

    def look(
        self, connection: Connection, queues: Sequence[str]
    ) -> tuple[dict[str, Cursor], dict[str, Cursor]]:
        """Return behind which place, and up to which, to claim in each queue: in one level of it.

        A queue is missing if it is paused or limited, or if only paused jobs were found in it.
        """
        began = time.monotonic()
        signs = self._jobs.signs(connection)  # Before looking: what comes later differs from them.
        levels = self._jobs.levels(connection, queues)
        self._forget_all_but(levels, queues)
        self._plan_second_search(signs, levels, began)
        rows = max(ROWS_MIN, ROWS // max(1, len(levels)))
        cursors = {level: self._places.get(level, before(level)) for level in levels}
        found, moved = self._step(connection, cursors, rows)
        self._places |= moved
        if self._is_under_way(levels) and (self._hurries or began >= self._again_at):
            found |= self._step_again(connection, levels, rows)
            self._again_at = time.monotonic() + (time.monotonic() - began) * (1 / SHARE - 1)
        self._hurries &= self._is_under_way(levels)
        self.next_at = time.monotonic() if moved else self._second_search_at(levels)
        starts: dict[str, Cursor] = {}
        # The best priority of each queue; every second time the next one, if that gave nothing.
        for queue, priority in sorted(found, key=lambda at: (found[at] in self._barren, at)):
            starts.setdefault(queue, found[queue, priority])
        self._barren.clear()
        ends = self._jobs.ahead(connection, _by_level(starts), rows)
        return starts, {queue: place for (queue, _), place in ends.items()}

    def gave_nothing(self, cursor: Cursor) -> None:
        """Note that a claim from behind this place gave nothing: another transaction has it."""
        self._barren.add(cursor)

    def _plan_second_search(self, signs: Signs, levels: Sequence[Level], began: float) -> None:
        """Start the second search over if it is time.

        One that has a reason comes to its end first, whatever happens meanwhile: each batch of a
        bulk action is one more reason.
        """
        self._has_reason |= signs != self._signs
        self._signs = signs
        if self._is_under_way(levels):
            if self._hurries or not self._has_reason:
                return
        elif not self._has_reason and began - self._began_at < INTERVAL:
            return
        searched = self._places if self._has_reason else self._places.keys() & set(levels)
        self._again |= {level: before(level) for level in searched}
        self._hurries, self._has_reason = self._has_reason, False
        self._began_at = began

    def _is_under_way(self, levels: Sequence[Level]) -> bool:
        """Return whether the second search has not come to the places of all these levels.

        Others may never be asked for again: their queues are empty, or wait for their turn.
        """
        return not self._again.keys().isdisjoint(levels)

    def _step(
        self, connection: Connection, cursors: Mapping[Level, Cursor], rows: int
    ) -> tuple[dict[Level, Cursor], dict[Level, Cursor]]:
        """Look behind the cursors; return the places before what was found, and the new cursors."""
        found, moved = {}, {}
        looked = self._jobs.first_unpaused(connection, cursors, rows)
        for level, ((priority, run_at, id_), is_unpaused) in looked.items():
            if is_unpaused:
                found[level] = (priority, run_at, id_ - 1)
            else:
                moved[level] = (priority, run_at, id_)
        return found, moved

    def _step_again(
        self, connection: Connection, levels: Sequence[Level], rows: int
    ) -> dict[Level, Cursor]:
        """Go on with the second search; return the places before what was found by it."""
        cursors = {level: self._again[level] for level in levels if level in self._again}
        found, moved = self._step(connection, cursors, rows)
        for level in cursors:
            place = self._places[level]
            if level in moved and moved[level] < place:
                self._again[level] = moved[level]
                continue
            del self._again[level]
            if level in found and found[level] < place:
                self._places[level] = found[level]
            else:
                found.pop(level, None)
        return found

    def _second_search_at(self, levels: Sequence[Level]) -> float:
        if self._is_under_way(levels):
            return time.monotonic() if self._hurries else self._again_at
        if self._has_reason:
            return time.monotonic()
        return self._began_at + INTERVAL if self._places else _NEVER

    def _forget_all_but(self, levels: Sequence[Level], queues: Sequence[str]) -> None:
        """Forget the levels that have no more jobs, and those that were not seen for long."""
        asked = set(queues) if len(self._places) <= 2 * len(levels) + PLACES_MAX else None
        for level in self._places.keys() - set(levels):
            if asked is None or level[0] in asked:
                del self._places[level]
                self._again.pop(level, None)


def _by_level(places: Mapping[str, Cursor]) -> dict[Level, Cursor]:
    return {(queue, place[0]): place for queue, place in places.items()}
