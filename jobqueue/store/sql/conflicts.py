"""The statements of an enqueue whose unique key is held.

The waiting holder is changed. Where the holder runs, one more job may wait for the key: it has the
key in `awaited_key`, whose own unique index lets no second one wait, and takes it once it is free.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Double,
    Executable,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    or_,
    select,
    update,
)
from sqlalchemy.sql.util import ClauseAdapter

from jobqueue.states import WAITING
from jobqueue.store.clock import after, now, plus
from jobqueue.store.dialects.base import Columns
from jobqueue.store.indexes import AWAITS_KEY
from jobqueue.store.schema import jobs
from jobqueue.store.sql.insert import due, given_values, seconds_from_now
from jobqueue.store.sql.predicates import HOLDS_KEY, becomes, in_state
from jobqueue.store.sql.rows import NEW_WITH_EXTRA

CONFLICT: Columns = {**NEW_WITH_EXTRA, "debounce": Double(), "max_wait": Double()}
"""The parameters, each named `in_…`."""

_WRITTEN = (
    *("task", "queue", "priority", "args", "tags", "timeout", "backoff", "unique_until"),
    *("headers", "scheduled_for", "lane", "lane_limit", "lane_weight", "lane_strict"),
)
_HAS_BEGUN = or_(jobs.c.attempt > 0, jobs.c.snoozes > 0, jobs.c.crashes > 0)
_KEY: BindParameter[str] = bindparam("in_unique_key", type_=Text())
_HOLDER = and_(jobs.c.unique_key == _KEY, HOLDS_KEY, in_state(*WAITING))
_SUCCESSOR = and_(jobs.c.awaited_key == _KEY, AWAITS_KEY)

_holder = jobs.alias("holder")
_HOLDS_AWAITED_KEY = and_(
    _holder.c.unique_key == jobs.c.awaited_key, ClauseAdapter(_holder).traverse(HOLDS_KEY)
)
_KEY_IS_FREE = ~select(_holder.c.id).where(_HOLDS_AWAITED_KEY).correlate(jobs).exists()
KEY_WAS_FREED = and_(AWAITS_KEY, _KEY_IS_FREE)
"""True for a job that waits for a key which no other job holds any more."""


def successor() -> Executable:
    """Select the job that waits for a key."""
    return select(jobs.c.id).where(_SUCCESSOR)


def holder_of_awaited_key() -> Executable:
    """Select the job that holds the key for which a job waits, and the key."""
    one = jobs.c.id == bindparam("in_job", type_=BigInteger())
    return select(_holder.c.id, _holder.c.unique_key).where(one, _HOLDS_AWAITED_KEY)


def waiters_of_free_keys() -> Executable:
    """Lock some jobs whose awaited keys are free."""
    return (
        select(jobs.c.id)
        .where(KEY_WAS_FREED)
        .limit(bindparam("in_limit", type_=Integer()))
        .with_for_update(skip_locked=True, of=jobs)
    )


def take_key() -> Executable:
    """Give a job the key that it waits for, if the key is free. It is due now, or when it was."""
    later = jobs.c.run_at > now()
    return (
        update(jobs)
        .where(jobs.c.id == bindparam("in_job", type_=BigInteger()), KEY_WAS_FREED)
        .values(
            unique_key=jobs.c.awaited_key,
            awaited_key=None,
            state=case((later, jobs.c.state), else_=becomes("promote")),
            run_at=case((later, jobs.c.run_at), else_=now()),
        )
        .returning(jobs.c.id)
    )


def reschedule(*, successor: bool = False) -> Executable:
    """Move the due time of the waiting holder of a key, or of the job that waits for the key."""
    which, values = (_SUCCESSOR if successor else _HOLDER), _moved(successor=successor)
    return update(jobs).where(which).values(values).returning(jobs.c.id)


def replace(*, successor: bool = False) -> Executable:
    """Write a new call onto one of the same two, with a fresh budget of attempts."""
    given = given_values(CONFLICT)
    values = {
        **{name: given[name] for name in _WRITTEN},
        **_moved(successor=successor),
        "max_attempts": jobs.c.attempt + given["max_attempts"],
        "base_max_attempts": given["max_attempts"],
        "deadline_at": seconds_from_now(given["deadline"]),
        "expires_at": seconds_from_now(given["expires"]),
        "snoozes": 0,
        "crashes": 0,
        "child_crashes": 0,
        "reason": None,
        "progress": None,
        "progress_message": None,
    }
    which = _SUCCESSOR if successor else _HOLDER
    return update(jobs).where(which).values(values).returning(jobs.c.id)


def _moved(*, successor: bool) -> dict[str, ColumnElement[Any]]:
    """Return the state and run_at of the holder: as of a new job, or debounced.

    A debounced job that awaits its next attempt keeps its due time: a burst of calls must not
    use up its attempts.
    """
    given = given_values(CONFLICT)
    debounce, max_wait = given["debounce"], given["max_wait"]
    state, run_at = due(given["delay"], given["at"])
    latest, wanted = plus(jobs.c.created_at, max_wait), after(debounce)
    soonest = case((max_wait.is_(None), wanted), (latest > wanted, wanted), else_=latest)
    scheduled = case((soonest > now(), becomes("postpone")), else_=becomes("run_now"))
    plain = debounce.is_(None)
    moved = case((plain, state), (_HAS_BEGUN, jobs.c.state), else_=scheduled)
    return {
        "state": becomes("postpone") if successor else moved,
        "run_at": case((plain, run_at), (_HAS_BEGUN, jobs.c.run_at), else_=soonest),
    }
