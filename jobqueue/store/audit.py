"""The audit: a row for each action of an operator that changed jobs, queues or schedules.

The command line and the HTTP API say to what changes rows who asks for it. A program that calls
the Python API is not an operator, and writes none.
"""

import getpass
import json
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, func, insert, select, update

from jobqueue.records import JobFilter
from jobqueue.store.audit_words import about, shown
from jobqueue.store.database import Store
from jobqueue.store.schema import audit, jobs

T = TypeVar("T")

ACTOR_LENGTH = 200
IDS = 100
"""Ids of jobs that a row names; of others it has the count."""


@dataclass
class Action:
    """What an operator asks for. It has one row, also where it takes many transactions.

    `target` are JSON values that say what it is about, as `target_of`, or `{"queue": "mail"}`:
    names, ids and options, never arguments of jobs.
    """

    actor: str
    verb: str
    target: Mapping[str, Any]
    before: Mapping[str, Any] | None = field(default=None, init=False)
    """What it replaced, by the names of the target; set in its transaction, by what changes rows.

    Of a schedule the columns that were there, and those that it set: `was` and `became`.
    """
    unchanged: int = field(default=0, init=False)
    """Jobs that could be changed, and were left as they are; set after the commit."""
    row: int | None = field(default=None, init=False)
    """The id of its row, once that is committed."""

    @property
    def who(self) -> str:
        """The actor in ASCII, for a database of any encoding."""
        return self.actor.encode("ascii", "backslashreplace").decode()[:ACTOR_LENGTH]

    def write(self, connection: Connection, changed: int) -> int | None:
        """Add what a transaction has changed; return the row's id, None if there is no row yet."""
        if not changed:
            return self.row
        if self.row is not None:
            more = {"changed": audit.c.changed + changed}
            connection.execute(update(audit).where(audit.c.id == self.row).values(more))
            return self.row
        new = insert(audit).values(
            actor=self.who,
            verb=self.verb,
            target=json.dumps(self.target),
            changed=changed,
            before=None if self.before is None else json.dumps(self.before),
        )
        return int(connection.execute(new.returning(audit.c.id)).scalar_one())


def action_of(operator: str | None, verb: str, **target: Any) -> Action | None:
    """Return what is written to the audit; None for a program, which is not an operator."""
    return None if operator is None else Action(operator, verb, target)


def transact_audited(
    store: Store,
    work: Callable[[Connection], T],
    action: Action | None,
    changed: Callable[[T], int],
    *,
    at_once: bool = False,
) -> T:
    """Run `work` in a transaction, and write to the audit in the same how many it has changed.

    `changed` reads that off the result of `work`. Nothing is written for 0, or without an action.
    `at_once`: see `Store.transact_at_once`.
    """
    transact = store.transact_at_once if at_once else store.transact
    if action is None:
        return transact(work)

    def both(connection: Connection) -> tuple[T, int | None]:
        result = work(connection)
        return result, action.write(connection, changed(result))

    # Only now, after the commit: a transaction that is tried again has to insert the row again.
    result, action.row = transact(both)
    return result


def target_of(wanted: JobFilter) -> dict[str, Any]:
    """Return the ids or the filter of a bulk verb as the target of an action."""
    if wanted.ids is not None:
        more = len(wanted.ids) - IDS
        return {"ids": wanted.ids[:IDS]} | ({"more_ids": more} if more > 0 else {})
    return wanted.named() or {"all": True}


def moved_from(
    connection: Connection, ids: Sequence[int], columns: Sequence[str]
) -> dict[str, Any] | None:
    """Return what these columns of locked jobs are, if they are the same of all of them."""
    if not columns or len(ids) > IDS:  # The row does not name them all.
        return None
    wanted = select(*(jobs.c[name] for name in columns)).where(jobs.c.id.in_(ids)).distinct()
    found = connection.execute(wanted).mappings().all()
    return dict(found[0]) if len(found) == 1 else None


def _object(text: str | None) -> dict[str, Any] | None:
    """Return a JSON object; None for what plain SQL has written there: it hides no other row."""
    try:
        value = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _sayable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without the JSON objects of which no words can be made, as `_object`."""
    try:
        about(row)
        shown(row["before"])
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
        return row | {"target": {}, "before": None}
    return row


def os_user() -> str:
    """Return the user of this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # A user without a name, as in containers.
        return "unknown"


def operator() -> str:
    """Return who uses the command line: `user@host`."""
    return f"{os_user()}@{socket.gethostname()}"


class Audit:
    """The rows of the audit. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(
        self, limit: int | None, since: datetime | None = None, before: int | None = None
    ) -> list[dict[str, Any]]:
        """Return actions as JSON values, newest first, those with ids below `before`.

        `about` says in words what each was about, and what it replaced.
        """
        return [
            row | {"before": shown(row["before"]), "about": about(row)}
            for row in self.stored(limit, since, before)
        ]

    def stored(
        self,
        limit: int | None,
        since: datetime | None = None,
        before: int | None = None,
        id_: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return the same, with `before` as it is stored: it may hold arguments of schedules."""
        wanted = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(audit.c.id < before)
        if id_ is not None:
            wanted = wanted.where(audit.c.id == id_)
        if since is not None:
            wanted = wanted.where(audit.c.at >= since)
        return [_sayable(row) | {"at": row["at"].isoformat()} for row in self._read(wanted)]

    def later(self, id_: int, verbs: Collection[str]) -> list[dict[str, Any]]:
        """Return what was done after an action: `verb`, `target`, `before`, and the last `id`."""
        what = (audit.c.verb, audit.c.target, audit.c.before)
        last = select(*what, func.max(audit.c.id).label("id")).group_by(*what)
        return self._read(last.where(audit.c.id > id_, audit.c.verb.in_(verbs)))

    def _read(self, wanted: Select[Any]) -> list[dict[str, Any]]:
        with self._store.read() as connection:
            rows = connection.execute(wanted).mappings().all()
        return [
            {
                **row,
                "target": _object(row["target"]) or {},
                "before": _object(row["before"]),
            }
            for row in rows
        ]
