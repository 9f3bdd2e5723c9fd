"""Takes back what an operator did, while what that set is still in force.

An undo is an action of its own, of the verb that sets what was there: it has its row in the audit,
and can be undone too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, exists, select

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
from jobqueue.store.queue_switches import Switchboard
from jobqueue.store.schedules import ScheduleTable
from jobqueue.store.schema import PauseKind, jobs, pauses, queues, schedules
from jobqueue.store.sql.predicates import in_force, in_state
from jobqueue.store.stats import Monitor

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
    """Takes it back where that is so; returns how much it has changed."""


def reversal(row: Row) -> Reversal | None:
    """Return what takes an action back; None for one that nothing can."""
    build = _BUILDERS.get(row["verb"])
    if build is None or (row["before"] is None and row["verb"] not in INVERSE):
        return None
    try:
        return build(row, row["target"], row["before"])
    except (ValueError, KeyError, TypeError):  # Plain SQL has written this row.
        return None


def _of_pause(row: Row, target: Row, _before: None) -> Reversal | None:
    ((kind, name),) = target.items()
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
        if kind == "queue":
            return getattr(Monitor(store), verb)(name, action)  # type: ignore[no-any-return]
        if kind != "schedule":
            return getattr(Pauses(store), verb)(PauseKind(kind), name, action)  # type: ignore[no-any-return]
        if verb == "resume":
            return ScheduleTable(store).resume(name, action)
        return ScheduleTable(store).pause(name, action.who, action)

    return Reversal(verb, target, still, act)


def _of_switch(row: Row, target: Row, before: Row) -> Reversal | None:
    switch, queue = row["verb"], target["queue"]
    old, new = before[switch], target[switch]
    seen = columns_of(switch, new)
    if columns_of(switch, old) == seen:
        return None
    return Reversal(
        switch,
        {"queue": queue, switch: old},
        exists().where(queues.c.name == queue, *in_force(queues, seen)),
        lambda store, action: Switchboard(store).restore(queue, switch, old, action, seen=new),
    )


def _of_move(_row: Row, target: Row, before: Row) -> Reversal | None:
    ids, new = tuple(target["ids"]), target["set"]
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
    name, was, became = target["schedule"], before["was"], before["became"]
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
        later = self._set_after(rows[0]["id"])
        newest: dict[str, int] = {}
        for row in rows:
            if row["id"] in found and _setting(row) not in later:
                newest.setdefault(_setting(row), row["id"])
        asked = [found[id_].still.label(f"of_{id_}") for id_ in newest.values()]
        with self._store.read() as connection:
            answers = connection.execute(select(*asked)).one() if asked else ()
        still = {id_ for id_, answer in zip(newest.values(), answers, strict=True) if answer}
        return {id_: it.verb if id_ in still else None for id_, it in found.items()}

    def undo(self, id_: int, actor: str, require: Callable[[str], object]) -> str:
        """Take an action back for an operator; return in words what that has changed.

        `require` raises if the operator may not do a verb. Raises JobNotFound if there is no such
        action, WrongState for one that cannot be taken back, or not any more.
        """
        row = next(iter(self._audit.stored(1, id_=id_)), None)
        if row is None:
            raise JobNotFound(f"there is no action {id_} (any more)", field="id", value=id_)
        taken = reversal(row)
        what = f"action {id_} ({row['verb']}: {about(row)})"
        if taken is None:
            raise WrongState(f"{what} cannot be undone", field="id", value=id_)
        require(taken.verb)
        action = Action(actor, taken.verb, taken.target)
        # What it set may be in force because somebody has set it again.
        is_last = _setting(row) not in self._set_after(id_)
        if not is_last or not taken.act(self._store, action):
            said = f"{what} is not undone: what it set was changed since"
            raise WrongState(said, field="id", value=id_)
        return f"{action.verb} {about({'target': action.target, 'before': action.before})}"

    def _set_after(self, id_: int) -> set[str]:
        """Return the settings of which a later action can be taken back."""
        rows = self._audit.later(id_, _BUILDERS)
        return {_setting(row) for row in rows if reversal(row) is not None}


def _setting(row: Row) -> str:
    """Return what an action sets, the same for two of which the newer one counts."""
    verb = {"resume": "pause", "reset": "add"}.get(row["verb"], row["verb"])
    kind, named = next(iter(row["target"].items()))
    return f"{verb} {kind} {named} {sorted(row['target'].get('set', ()))}"
