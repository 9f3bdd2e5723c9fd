"""The conditions that statements share: states, keys, pauses. Each is defined only here.

States are literals, because SQLite matches a partial index by the text of its predicate.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
)
from sqlalchemy.sql.util import ClauseAdapter

from jobqueue.options import SECONDS_MAX
from jobqueue.states import LIVE, MOVES, State
from jobqueue.store.clock import after
from jobqueue.store.schema import PauseKind, jobs, pauses, queues, workers


def in_state(*states: State) -> ColumnElement[bool]:
    """Return `state IN (…)` with the states as literals."""
    names: list[ColumnElement[str]] = [literal_column(f"'{state.value}'") for state in states]
    return jobs.c.state == names[0] if len(names) == 1 else jobs.c.state.in_(names)


def may(verb: str) -> ColumnElement[bool]:
    """Return the state guard of a verb."""
    return in_state(*MOVES[verb].before)


def in_force(table: FromClause, values: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """Return the conditions that columns of a row have these values; None is NULL."""
    return [table.c[name].is_not_distinct_from(value) for name, value in values.items()]


def as_integer(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the integer of a column, to compare: of what SQLite lets in besides, 0, as `Whole`."""
    number = cast(column, Integer())
    return case((number != column, 0), else_=number)


def becomes(verb: str) -> ColumnElement[str]:
    """Return the state that a verb leads to."""
    return literal_column(f"'{MOVES[verb].after.value}'", Text())


PLAIN = jobs.c.lane.is_(None)
"""True for a job without a concurrency key."""

AVAILABLE = tuple(and_(in_state(State.AVAILABLE), lane) for lane in (PLAIN, ~PLAIN))
"""The available jobs, in two parts: each is the predicate of an index."""

ONCE = func.coalesce(jobs.c.base_max_attempts, jobs.c.max_attempts) == 1
"""True for a job that may start at most once (per retry by an operator)."""

SOLO = or_(
    ONCE,
    jobs.c.crashes > 0,
    func.coalesce(jobs.c.unique_until, "") == "started",
    # Not a bare IS NOT NULL, which SQLite 3.40 has for true in the RETURNING of some updates.
    func.coalesce(jobs.c.expires_at, null()).is_not(None),
)
"""True for a job that must start as soon as it is claimed."""

USUAL = and_(
    ~ONCE,
    jobs.c.snoozes + jobs.c.crashes + jobs.c.child_crashes == 0,
    func.coalesce(jobs.c.unique_until, "") != "started",
    func.coalesce(jobs.c.backoff, null()).is_(None),
    func.coalesce(jobs.c.deadline_at, jobs.c.scheduled_for, jobs.c.expires_at).is_(None),
)
"""True for a claimed job that has nothing of what few jobs have: see `claim_columns`."""

IS_PAUSED = queues.c.paused_at.is_not(None)

QUEUE_PAUSED = exists().where(queues.c.name == jobs.c.queue, IS_PAUSED)


def pause_applies(job: FromClause = jobs) -> ColumnElement[bool]:
    """Return whether a row of pauses is of the job's task, or of one of its tags."""
    quote = literal_column("'\"'", Text())  # Names have none.
    tag = quote.concat(pauses.c.name).concat(quote)
    return or_(
        and_(_of(PauseKind.TASK), pauses.c.name == job.c.task),
        and_(_of(PauseKind.TAG), func.replace(job.c.tags, tag, "") != job.c.tags),
    )


def _of(kind: PauseKind) -> ColumnElement[bool]:
    return pauses.c.kind == literal_column(f"'{kind}'")


def unpaused(job: FromClause = jobs) -> ColumnElement[bool]:
    """Return whether neither the job's task nor one of its tags is paused.

    Where nothing is, which a statement asks once, it does not look at its jobs.
    """
    paused: Select[Any] = select(literal_column("1")).select_from(pauses)
    return or_(~paused.exists(), ~paused.where(pause_applies(job)).exists())


LIMIT_IS_0 = or_(
    exists().where(
        queues.c.name == jobs.c.queue,
        or_(as_integer(queues.c.max_running) <= 0, as_integer(queues.c.rate_count) <= 0),
    ),
    func.coalesce(as_integer(jobs.c.lane_limit), 1) <= 0,
)
"""True for a job that a limit or rate of 0 holds back, its queue's or its own: a pause."""

QUEUE_LIMITED = or_(
    queues.c.max_running.is_not(None), queues.c.rate_count.is_not(None), queues.c.fair == 1
)
"""True for a queue whose jobs are claimed under the lock of its lane."""

_UNTIL_IT_BEGINS = and_(jobs.c.unique_until == "started", jobs.c.key_released == 0)

HOLDS_KEY = or_(
    jobs.c.unique_until == "deleted",
    and_(jobs.c.unique_until == "finished", in_state(*LIVE)),
    and_(_UNTIL_IT_BEGINS, in_state(*LIVE)),
)
"""The predicate of the unique index."""

FREES_KEY = and_(func.coalesce(jobs.c.unique_until, "") == "started", jobs.c.key_released == 0)
"""True for a claimed job whose unique key is freed when it starts."""

_OTHER = jobs.alias("other")
KEY_HELD_BY_OTHER = (
    select(_OTHER.c.id)
    .where(
        _OTHER.c.unique_key == jobs.c.unique_key,
        _OTHER.c.id != jobs.c.id,
        or_(jobs.c.unique_until == "finished", _UNTIL_IT_BEGINS),
        ClauseAdapter(_OTHER).traverse(HOLDS_KEY),
    )
    .exists()
)
"""True for a final job that would need its unique key for a retry, while another job holds it."""

# PostgreSQL has no interval of a lease of 1e300 s, which plain SQL may write.
_LEASE = case((workers.c.lease.between(0.0, SECONDS_MAX), workers.c.lease), else_=0.0)
IS_ALIVE = workers.c.heartbeat_at >= after(-_LEASE)
"""True for a worker whose last heartbeat is younger than its lease."""

CANCEL_ASKED = jobs.c.cancel_requested_at.is_not(None)
"""True for a running job whose cancellation was requested."""

HELD_BY_ANY = jobs.c.worker_id.between(1, literal_column(str(2**63 - 1), BigInteger()))
"""True for a job that is claimed.

A range, not IS NOT NULL: until an ANALYZE, PostgreSQL takes that for true of nearly all rows, and
reads a million of them.
"""

HELD = jobs.c.worker_id == bindparam("in_worker", type_=BigInteger())
"""True for a job that is claimed under this lease."""

MINE = func.coalesce(jobs.c.worker_id, 0) == bindparam("in_worker", type_=BigInteger())
"""HELD as a guard of writes: a server that lost commits may give one fence to two attempts.

The coalesce keeps planners from the index of held jobs, which they would scan for each lookup.
"""

OF_CLAIM = (
    jobs.c.id == bindparam("in_job", type_=BigInteger()),
    jobs.c.fence == bindparam("in_claimed", type_=BigInteger()),
    MINE,
)
"""True for the job of one claim, while that is held."""
