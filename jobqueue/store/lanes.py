"""Lanes: how workers claim jobs that a limit, a rate or a fair share holds back.

A job with a concurrency key is in the lane of its key, whatever its queue. A queue with a limit, a
rate or fair shares is a lane too, of all its jobs. A lane's row is locked while its jobs are
claimed, and the running ones are counted under that lock. Producers never write the row. Locks are
taken in the order queue, keys, and never waited for.
"""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable

from jobqueue.records import Claim
from jobqueue.store.claims import WorkerRef, claims_of
from jobqueue.store.database import Store
from jobqueue.store.lane_admission import (
    Head,
    Lane,
    Places,
    QueueLane,
    Switches,
    choose_fairly,
    choose_in_order,
)
from jobqueue.store.lane_rows import LANES_AT_ONCE, LOCK_WAIT, LaneRows
from jobqueue.store.paused_lanes import Seen
from jobqueue.store.schema import LaneKind, Parked
from jobqueue.store.sql.lanes import SERVED, WAIT_MAX
from jobqueue.store.sql.rows import IDS, NAMES, PAIRS

PARKED_MAX = 5.0  # seconds for which a full lane is passed over, if nothing brings it back
PARKED_BETWEEN_ATTEMPTS = 1.0  # seconds; for a lane whose strict job awaits its next attempt
HIDING_AT_ONCE = 1
"""Keys of which one claim reads the jobs behind those with a limit of 0: up to 10,000 of each."""
HEADS_MIN = 10  # jobs of a key that a claim looks at: their own limits may hold back the first


class LaneClaims(NamedTuple):
    """What one claim from the lanes of a queue gave."""

    claims: Sequence[Claim] = ()
    keys: Mapping[int, str] = MappingProxyType({})
    """By id: the concurrency keys of the claims that have one."""
    retry_in: float | None = None
    """Seconds until the queue's rate allows the next start; None if no rate holds it back."""
    is_locked: bool = False
    """Another worker claims from these lanes at this moment: look again soon."""
    is_limited: bool = False
    """The queue itself has a limit, a rate or fair shares."""
    has_more: bool = False
    """Look again at once: not all that may start was seen, or taken."""
    brought_back: Collection[str] = ()
    """Keys that were given as ended, and are parked now only if they are full."""


class Lanes(LaneRows):
    """Claims from the lanes of one database. Each method runs in a transaction."""

    def __init__(self, store: Store, *, lock_wait: float = LOCK_WAIT) -> None:
        super().__init__(store, lock_wait=lock_wait)
        self._asked_first: set[str] = set()
        """Queues whose switches are read before any key of them is locked.

        The last claim found them paused, or with a limit, a rate or fair shares.
        """

    def claim(
        self,
        connection: Connection,
        holder: WorkerRef,
        queue: str,
        limit: int,
        ended: Collection[str] = (),
    ) -> LaneClaims:
        """Claim up to `limit` jobs from the lanes of a queue, each to start at once.

        `ended`: keys in which jobs have ended, claimed from even if they are parked. Hand the
        claims out only after the commit.
        """
        if limit <= 0:
            return LaneClaims()
        self.limit_stall(connection)
        self.prepare(connection, holder)
        switches, turns, are_others = self._lock_unless_limited(connection, queue, limit, ended)
        if switches.paused_at is not None:
            return LaneClaims()
        if not switches.is_limited:
            lanes = self._of_locked(connection, queue, switches, turns, limit)
            chosen = choose_in_order(lanes, limit)
            claims = self._claim_in_order(connection, holder, queue, chosen, lanes)
            are_left = self._write(connection, lanes) or are_others or len(lanes) < len(turns)
            return LaneClaims(
                claims,
                _keys(lanes, claims),
                is_locked=are_others and not turns,
                has_more=are_left and bool(claims or _passed_over(lanes)),
                brought_back=turns.keys() & {lane.key for lane in lanes} & {*ended},
            )
        own = self._lock_queue(connection, queue, switches)
        if own is None:
            return LaneClaims(is_locked=True, is_limited=True)
        room = min(limit, own.room())
        lanes = self._lock_all(connection, queue, own, room) if room else []
        chosen = choose_fairly(lanes, room, own) if switches.fair else choose_in_order(lanes, room)
        claims = self._claim_in_order(connection, holder, queue, chosen, lanes)
        own.started(len(claims))
        self._write(connection, lanes)
        is_left = self._write_queue(connection, queue, own, lanes)
        return LaneClaims(
            claims,
            _keys(lanes, claims),
            retry_in=own.wait(),
            is_limited=True,
            has_more=is_left and bool(claims or _passed_over(lanes) or own.rest == 0),
        )

    def _lock_unless_limited(
        self, connection: Connection, queue: str, limit: int, ended: Collection[str]
    ) -> tuple[Switches, dict[str, float], bool]:
        """Return a queue's switches; if it has no limit, the turns of its locked keys by name.

        And whether there are others that are not parked. One statement does all, unless the last
        claim found the queue limited or paused: a lock is written to the disk, and a worker looks
        at such a queue all the time.
        """
        known, most = self._statements, min(limit, LANES_AT_ONCE)
        if queue in self._asked_first:
            given = {"in_queue": queue}
            switches = Switches(*connection.execute(known.switches, given).one())
            if switches.is_held_back:
                return switches, {}, False
            self._asked_first.discard(queue)
        rows = self._of_names(connection, known.switches_and_lock, queue, ended, most)
        switches = Switches(*rows[0][: len(Switches._fields)])
        if switches.is_held_back:
            self._asked_first.add(queue)
            return switches, {}, False
        turns = {row.name: row.turn for row in rows if row.name is not None}
        return switches, turns, rows[0].unparked > sum(row.is_first or 0 for row in rows)

    def _lock_queue(
        self, connection: Connection, queue: str, switches: Switches
    ) -> QueueLane | None:
        """Lock the lane of a queue; return None if another worker holds it."""
        parameters = {"in_queue": queue}
        row = connection.execute(self._statements.lock_queue, parameters).one_or_none()
        if row is None:  # It is locked, or not there yet.
            self._add(connection, [(LaneKind.QUEUE, queue, queue, 0, None)])
            row = connection.execute(self._statements.lock_queue, parameters).one_or_none()
        if row is None:
            return None
        running = 0
        if switches.max_running is not None:  # After the lock: who held it has committed.
            counted = connection.execute(self._statements.running_in_queue, {"in_queue": queue})
            running = counted.scalar_one()
        return QueueLane(switches, row.turn, row.plain_turn, row.next_start, running)

    def _lock_all(
        self, connection: Connection, queue: str, own: QueueLane, limit: int
    ) -> list[Lane]:
        """Lock the lanes of a limited queue's keys; add the lane of its jobs without a key."""
        if own.switches.is_any_paused:
            heads, own.rest, _ = self._paused.of_queue(connection, queue, limit + 1)
        else:
            given = {"in_queue": queue, "in_limit": limit + 1}
            rows = connection.execute(self._statements.plain_heads, given)
            heads = [Head(*row) for row in rows]
        turns = self._lock(connection, queue, own.switches, limit)
        lanes = self._of_locked(connection, queue, own.switches, turns, limit)
        own.are_others = own.rest == 0 or len(turns) >= min(limit, LANES_AT_ONCE)
        if heads:
            lanes.append(Lane(None, own.plain_turn, heads))
        return lanes

    def _lock(
        self, connection: Connection, queue: str, switches: Switches, limit: int
    ) -> dict[str, float]:
        is_fair = switches.fair == 1
        statement = self._statements.lock_by_turn if is_fair else self._statements.lock_by_due_time
        parameters = {"in_queue": queue, "in_limit": min(limit, LANES_AT_ONCE)}
        return dict(map(tuple, connection.execute(statement, parameters)))

    def _of_locked(
        self,
        connection: Connection,
        queue: str,
        switches: Switches,
        turns: Mapping[str, float],
        limit: int,
    ) -> list[Lane]:
        paused = switches.is_any_paused
        return self.of_keys(connection, queue, turns, limit, paused=paused, hiding=HIDING_AT_ONCE)

    def of_keys(
        self,
        connection: Connection,
        queue: str,
        turns: Mapping[str, float],
        limit: int,
        *,
        paused: bool = False,
        hiding: int = LANES_AT_ONCE,
    ) -> list[Lane]:
        """Return the lanes of keys, given their turns, as a claim of `limit` jobs sees them.

        `paused`: some task or tag is, so that a bounded number of their jobs is looked at. Else
        without some keys, by chance, if more than `hiding` begin with jobs that have a limit of 0.
        """
        if not turns:
            return []
        most = max(limit, HEADS_MIN) + 1
        if paused:
            rows = self._of_names(connection, self._statements.places, queue, turns)
            places = {row.lane: Places(*row[1:]) for row in rows}
            seen = self._paused.of_keys(connection, queue, turns, most)
        else:
            places, seen = self._places_and_heads(connection, queue, turns, most)
        found: dict[str, Lane] = {}
        for name, turn in turns.items():
            heads, rest, last = seen[name]
            held, more = places.get(name, Places()), len(heads) >= most
            found[name] = Lane(name, turn, heads, held, rest=rest, last=last, has_more=more)
        if not paused:  # Else they were left out.
            self._look_behind(connection, queue, found, most, hiding)
        return list(found.values())

    def _look_behind(
        self, connection: Connection, queue: str, found: dict[str, Lane], limit: int, keys: int
    ) -> None:
        """Add the jobs behind those with a limit of 0, of `keys` keys; leave the others out."""
        hiding = [name for name, lane in found.items() if lane.may_hide_others]
        if not hiding:
            return
        for name in random.sample(hiding, max(0, len(hiding) - keys)):
            del found[name]
        names = found.keys() & {*hiding}
        behind: dict[str, list[Head]] = {name: [] for name in names}
        for row in self._of_names(connection, self._statements.heads_behind, queue, names, limit):
            behind[row.lane].append(Head(*row))
        for name, heads in behind.items():
            lane = found[name]
            found[name] = replace(lane, heads=[*{*lane.heads, *heads}])

    def _places_and_heads(
        self, connection: Connection, queue: str, names: Iterable[str], limit: int
    ) -> tuple[dict[str, Places], dict[str, Seen]]:
        """Return what runs in lanes, and their first jobs, up to `limit` of each."""
        heads: dict[str, list[Head]] = {name: [] for name in names}
        places: dict[str, Places] = {}
        statement, counts = self._statements.heads_and_places, len(Places._fields)
        for row in self._of_names(connection, statement, queue, heads, limit):
            if row.id is None:
                places[row.lane] = Places(*row[-counts:])
            else:
                heads[row.lane].append(Head(*row[:-counts]))
        return places, {name: Seen(jobs) for name, jobs in heads.items()}

    def _of_names(
        self,
        connection: Connection,
        statement: Executable,
        queue: str,
        names: Iterable[str],
        limit: int | None = None,
    ) -> Sequence[Any]:
        """Run a statement about the jobs of lanes in a queue, up to `limit` of each."""
        given = self._backend.batch_parameters(NAMES, [(name,) for name in sorted(names)])
        return connection.execute(statement, given | {"in_queue": queue, "in_limit": limit}).all()

    def _claim_in_order(
        self,
        connection: Connection,
        holder: WorkerRef,
        queue: str,
        chosen: Mapping[int, str | None],
        lanes: Sequence[Lane],
    ) -> list[Claim]:
        """Claim what was chosen of lanes, and note in them what could not be claimed.

        Nor are those that would overtake a strict job so, or be overtaken by one.
        """
        claims = self.claim_jobs(connection, holder, queue, chosen)
        if len(claims) == len(chosen):
            return claims
        claimed = {claim.id for claim in claims}
        for lane in lanes:
            lane.missed_all_but(claimed)
        missed = {id_ for lane in lanes for id_ in lane.missed}
        self._undo(connection, [claim for claim in claims if claim.id in missed])
        return [claim for claim in claims if claim.id not in missed]

    def claim_jobs(
        self,
        connection: Connection,
        holder: WorkerRef,
        queue: str,
        keys: Mapping[int, str | None],
    ) -> list[Claim]:
        """Claim jobs of a queue, in this order, whatever their limits, given their keys by id.

        Without those that are gone, or were given another key or queue meanwhile.
        """
        if not keys:
            return []
        parameters = self._backend.batch_parameters(IDS, [(id_,) for id_ in sorted(keys)])
        parameters |= {"in_worker": holder.id, "in_worker_name": holder.name}
        rows = connection.execute(self._statements.claim, parameters).all()
        claims = claims_of(self._store, (row[:-1] for row in rows), holder)
        by_id = {
            claim.id: claim
            for claim, row in zip(claims, rows, strict=True)
            if (claim.queue, row.lane) == (queue, keys[claim.id])
        }
        if len(by_id) < len(claims):  # What runs in another queue or lane was not counted.
            self._undo(connection, [claim for claim in claims if claim.id not in by_id])
        return [by_id[id_] for id_ in keys if id_ in by_id]  # Some may be locked or gone.

    def _undo(self, connection: Connection, claims: Sequence[Claim]) -> None:
        """Undo claims of this transaction."""
        if claims:
            pairs = sorted((claim.id, claim.fence) for claim in claims)
            given = self._backend.batch_parameters(PAIRS, pairs)
            connection.execute(self._store.statements.undo_claim, given)

    def _write(self, connection: Connection, lanes: Sequence[Lane]) -> bool:
        """Write where the lanes stand: removed if empty, parked if no job of them may start.

        Return whether any is neither.
        """
        empty, served = [], []
        for lane in lanes:
            if lane.key is None:
                continue
            parked, wait = Parked.NO, 0.0
            if lane.first_left is None:
                if lane.rest is None:
                    empty.append((lane.key,))
                    continue
                wait = lane.rest  # All that was seen of it is paused.
                parked = Parked.FULL if wait else Parked.NO
            elif lane.is_locked:
                parked = Parked.FULL  # Until the next sweep: else no key behind it has its turn.
            elif not lane.may_give_more:
                parked = Parked.FULL
                awaits = lane.places.places > lane.places.running
                wait = PARKED_BETWEEN_ATTEMPTS if awaits else PARKED_MAX
            served.append((LaneKind.KEY, lane.key, lane.turn, *lane.next_place, parked, wait))
        if empty:
            names = self._backend.batch_parameters(NAMES, empty)
            connection.execute(self._statements.remove, names)
        if served:
            given = self._backend.batch_parameters(SERVED, served)
            connection.execute(self._statements.update_lanes, given)
        return any(parked == Parked.NO for *_, parked, _ in served)

    def _write_queue(
        self,
        connection: Connection,
        queue: str,
        own: QueueLane,
        lanes: Sequence[Lane],
    ) -> bool:
        """Write where a limited queue stands: parked if it is full, or nothing is left in it.

        Return whether it is neither.
        """
        for lane in lanes:
            if lane.key is None:
                own.plain_turn = lane.turn
        parked, wait = Parked.NO, own.wait()
        if wait is not None or not own.room():
            parked = Parked.FULL
        elif not own.are_others and not any(lane.first_left or lane.rest == 0 for lane in lanes):
            parked = Parked.EMPTY
        parameters = {
            "in_queue": queue,
            "in_turn": own.turn,
            "in_plain_turn": own.plain_turn,
            "in_next_start": own.next_start,
            "in_parked": parked.value,
            "in_wait": PARKED_MAX if wait is None else min(wait, WAIT_MAX),
        }
        connection.execute(self._statements.update_queue, parameters)
        return parked == Parked.NO


def _passed_over(lanes: Sequence[Lane]) -> bool:
    return any(lane.key is not None and (lane.is_locked or not lane.allowed) for lane in lanes)


def _keys(lanes: Sequence[Lane], claims: Sequence[Claim]) -> dict[int, str]:
    """Return the keys of claims by id."""
    taken = {head.id: lane.key for lane in lanes if lane.key for head in lane.allowed[: lane.taken]}
    return {claim.id: taken[claim.id] for claim in claims if claim.id in taken}
