"""Takes back what an operator did, while what that set is still in force.

An undo is an action of its own, of the verb that sets what was there: it has its row in the audit,
and can be undone too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, FromClause, exists, select

from jobqueue.errors import JobNotFound, WrongState
from jobqueue.job_changes import JobChanges
from jobqueue.queue_switches import columns_of
from jobqueue.records import JobFilter
from jobqueue.states import WAITING
from jobqueue.store.audit import Action, Audit
from jobqueue.store.audit_words import about
from jobqueue.store.database import Store
from jobqueue.store.jobs import Jobs
from jobqueue.store.pauses import Pauses
from jobqueue.store.queue_control import QueueControl
from jobqueue.store.schedules import ScheduleTable
from jobqueue.store.schema import PauseKind, jobs, pauses, queues, schedules
from jobqueue.store.sql.predicates import in_force, in_state

INVERSE = {"pause": "resume", "resume": "pause"}

Row = dict[str, Any]
"""A row of the audit as `Audit.stored` returns it."""


@dataclass(frozen=True)
class Reversal:
    """What takes an action back."""

    verb: str
    """Who may do this verb, may take it back."""
    target: dict[str, Any]
    """What its own row in the audit says."""
    still: ColumnElement[bool]
    """True while what the action set is in force."""
    act: Callable[[Store, Action], int]
    """Writes the old setting while `still` is true; returns the number of changed rows."""


def reversal(row: Row) -> Reversal | None:
    """Return the reversal of an action; None if it has none."""
    build = _BUILDERS.get(row["verb"])
    if build is None or (row["before"] is None and row["verb"] not in INVERSE):
        return None
    try:
        return build(row, row["target"], row["before"])
    except (ValueError, LookupError, TypeError, AttributeError):  # Plain SQL has written this row.
        return None


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _check(table: FromClause, *sides: Row) -> None:
    """Raise TypeError or KeyError for JSON values that the columns of these names cannot have."""
    for name, value in (one for side in sides for one in side.items()):
        if value is not None and not isinstance(value, table.c[name].type.python_type):
            raise TypeError


def _of_pause(row: Row, target: Row, _before: None) -> Reversal | None:
    ((kind, given),) = target.items()
    name = _name(given)
    verb, is_paused = INVERSE[row["verb"]], row["verb"] == "pause"
    if kind in ("queue", "schedule"):
        table = queues if kind == "queue" else schedules
        paused = table.c.paused_at
        set_ = paused.is_not(None) if is_paused else paused.is_(None)
        still: ColumnElement[bool] = exists().where(table.c.name == name, set_)
    else:
        found = exists().where(pauses.c.kind == PauseKind(kind), pauses.c.name == name)
        still = found if is_paused else ~found

    def act(store: Store, action: Action) -> int:
        if kind != "schedule":
            return getattr(Pauses(store, action.actor), verb)(PauseKind(kind), name)  # type: ignore[no-any-return]
        table = ScheduleTable(store, action.actor)
        return table.resume(name) if verb == "resume" else table.pause(name, action.who)

    return Reversal(verb, target, still, act)


def _of_switch(row: Row, target: Row, before: Row) -> Reversal | None:
    switch, queue = row["verb"], _name(target["queue"])
    old, new = before[switch], target[switch]
    seen = columns_of(switch, new)
    if columns_of(switch, old) == seen:
        return None
    return Reversal(
        switch,
        {"queue": queue, switch: old},
        exists().where(queues.c.name == queue, *in_force(queues, seen)),
        lambda store, action: QueueControl(store).restore(queue, switch, old, action, seen=new),
    )


def _of_move(_row: Row, target: Row, before: Row) -> Reversal | None:
    ids, new = tuple(map(int, target["ids"])), target["set"]
    _check(jobs, before, new)
    if before == new:
        return None
    wanted, old = JobFilter(ids=ids), JobChanges(**before)
    return Reversal(
        "update",
        {"ids": target["ids"], "set": before},
        exists().where(jobs.c.id.in_(ids), in_state(*WAITING), *in_force(jobs, new)),
        lambda store, action: len(Jobs(store).update(wanted, old, action, seen=new)[0]),
    )


def _of_schedule(_row: Row, target: Row, before: Row) -> Reversal | None:
    name, was, became = _name(target["schedule"]), before["was"], before["became"]
    _check(schedules, was, became)
    if was == became:
        return None
    return Reversal(
        "add",
        {"schedule": name},
        exists().where(schedules.c.name == name, *in_force(schedules, became)),
        lambda store, action: ScheduleTable(store).restore(name, was, action, seen=became),
    )


_BUILDERS: dict[str, Callable[[Row, Row, Any], Reversal | None]] = {
    **dict.fromkeys(INVERSE, _of_pause),
    **dict.fromkeys(("limit", "rate", "fair"), _of_switch),
    "update": _of_move,
    **dict.fromkeys(("add", "reset"), _of_schedule),
}
_CHANGES = (*_BUILDERS, "remove")
"""Verbs after which an earlier action may no longer be in force."""


class Undo:
    """Takes actions back. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._audit = Audit(store)

    def offers(self, rows: Sequence[Row]) -> dict[int, str | None]:
        """Return which of these actions, newest first, can be taken back, by what verb.

        The keys are ids; the value is None where what an action set was changed since, and of two
        with the same target for the older one, also if the newer one is not among these.
        """
        found = {row["id"]: it for row in rows if (it := reversal(row)) is not None}
        if not found:
            return {}
        later = {setting for row in self._later(rows[0]["id"]) for setting in _changed(row)}
        newest = []
        for row in rows:
            if row["id"] in found and _setting(row) not in later:
                newest.append(row["id"])
            later.update(_changed(row))
        asked = [found[id_].still.label(f"of_{id_}") for id_ in newest]
        with self._store.read() as connection:
            answers = connection.execute(select(*asked)).one() if asked else ()
        still = {id_ for id_, answer in zip(newest, answers, strict=True) if answer}
        return {id_: it.verb if id_ in still else None for id_, it in found.items()}

    def undo(self, id_: int, actor: str, require: Callable[[str], object]) -> str:
        """Take an action back for an operator; return in words what that has changed.

        `require` raises if the operator may not do a verb. Raises JobNotFound if there is no such
        action, WrongState for one that cannot be taken back, or not any more.
        """
        row = next(iter(self._audit.stored(1, id_=id_)), None)
        if row is None:
            raise JobNotFound(
                f"there is no action {id_} (any more); see: jobqueue log", field="id", value=id_
            )
        taken = reversal(row)
        what = f"action {id_} ({row['verb']}: {about(row)})"
        if taken is None:
            instead = "; to run its jobs: jobqueue retry" if row["verb"] == "cancel" else ""
            raise WrongState(f"{what} cannot be undone{instead}", field="id", value=id_)
        require(taken.verb)
        action = Action(actor, taken.verb, taken.target)
        # What it set may be in force because somebody has set it again.
        if self._change_since(row) is not None or not taken.act(self._store, action):
            why = _why_not(row, taken, self._change_since(row))
            raise WrongState(f"{what} is not undone: {why}", field="id", value=id_)
        return f"{action.verb} {about({'target': action.target, 'before': action.before})}"

    def _later(self, id_: int) -> list[Row]:
        return self._audit.later(id_, _CHANGES)

    def _change_since(self, row: Row) -> Row | None:
        """Return the newest later action that has changed what this one set, if there is one."""
        later = self._later(row["id"])
        ids = [each["id"] for each in later if _setting(row) in _changed(each)]
        return next(iter(self._audit.stored(1, id_=max(ids))), None) if ids else None


def _setting(row: Row) -> str:
    """Return what an action sets, the same for two of which the newer one counts."""
    verb = {"resume": "pause", "reset": "add"}.get(row["verb"], row["verb"])
    kind, named = next(iter(row["target"].items()), ("", ""))
    columns = row["target"].get("set")
    return f"{verb} {kind} {named} {sorted(columns) if isinstance(columns, dict) else ''}"


def _changed(row: Row) -> tuple[str, ...]:
    """Return the settings that an action has changed."""
    if _is_other_schedule(row):
        return tuple(_setting(row | {"verb": verb}) for verb in ("pause", "add"))
    # One that replaced a value by the same has changed nothing.
    return (_setting(row),) if row["before"] is None or reversal(row) is not None else ()


def _is_other_schedule(row: Row) -> bool:
    """Return whether an action has removed a schedule, or has made one: there was none."""
    return row["verb"] == "remove" or (row["verb"] == "add" and row["before"] is None)


def _why_not(row: Row, taken: Reversal, since: Row | None) -> str:
    """Return why an action is not taken back, by the last change since that the audit has."""
    if since is None and taken.verb == "update":
        return "its jobs wait no longer, or were changed since"
    if since is None:
        return "what it set was changed since, by a program or SQL"
    at = f"{datetime.fromisoformat(since['at']).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    who = f"by {since['actor']} at {at} (action {since['id']})"
    if _is_other_schedule(since):
        done = "removed" if since["verb"] == "remove" else "added again"
        return f"that schedule was {done} since, {who}"
    is_undo = (since["verb"], since["target"]) == (taken.verb, taken.target)
    if is_undo and taken.verb == "add":  # The target of a schedule is its name alone.
        is_undo = since["before"]["became"] == row["before"]["was"]
    return f"{'it was undone already' if is_undo else 'what it set was changed since'}, {who}"
