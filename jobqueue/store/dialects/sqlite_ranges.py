"""Ranges of a queue's jobs, as SQLite searches an index for them."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, ColumnElement, FromClause, and_, case, literal_column, or_

from jobqueue.store.clock import INSTANT

_LAST_ID: ColumnElement[int] = literal_column(str(2**63 - 1), BigInteger())
_LAST_INSTANT: ColumnElement[object] = literal_column("'9999-12-31'", INSTANT)  # As checks say.


def parts(table: FromClause, given: FromClause) -> Sequence[Sequence[ColumnElement[bool]]]:
    """Return the parts of a range: see `Backend.parts_of_range`.

    SQLite searches an index for row values from the first equal one to the last, and without the
    id: it would read all jobs of the first and of the last instant, and one INSERT may give a
    million the same. So these are the first instant, the rest of its priority, the priorities
    between, and the last priority up to the last instant, and this.
    """
    priority, run_at, id_ = table.c.priority, table.c.run_at, table.c.id
    ends_later = given.c.last_priority > given.c.priority
    is_one_level = given.c.last_priority == given.c.priority
    ends_after = or_(ends_later, and_(is_one_level, given.c.last_run_at > given.c.run_at))
    is_one = and_(is_one_level, given.c.last_run_at == given.c.run_at)
    in_first, in_last = priority == given.c.priority, priority == given.c.last_priority
    last_id = case((ends_after, _LAST_ID), (is_one, given.c.last_id))
    before = case((ends_later, _LAST_INSTANT), (is_one_level, given.c.last_run_at))
    return [
        [in_first, run_at == given.c.run_at, id_ > given.c.id, id_ <= last_id],
        [in_first, run_at > given.c.run_at, run_at < before],
        [priority > given.c.priority, priority < given.c.last_priority],
        [in_last, run_at < case((ends_later, given.c.last_run_at))],
        [in_last, run_at == case((ends_after, given.c.last_run_at)), id_ <= given.c.last_id],
    ]
