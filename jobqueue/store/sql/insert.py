"""The statements that insert new jobs."""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    or_,
    select,
    type_coerce,
)
from sqlalchemy import insert as sql_insert

from jobqueue.states import State
from jobqueue.store.clock import INSTANT, Instant, after, now
from jobqueue.store.dialects.base import PLAIN_COLUMNS, Backend, Columns
from jobqueue.store.schema import jobs
from jobqueue.store.sql.predicates import becomes
from jobqueue.store.sql.rows import NEW

_COMPUTED = ("delay", "at", "deadline", "expires")


def insert(backend: Backend, columns: Columns = NEW) -> Executable:
    """Insert many jobs in order, without those whose unique key is held."""
    given = backend.batch_table(columns)
    plain = [name for name in columns if name not in _COMPUTED]
    expiry = [seconds_from_now(given.c.expires)] if "expires" in columns else []
    names = [*plain, "state", "run_at", "deadline_at", *(["expires_at"] if expiry else [])]
    state, run_at = due(given.c.delay, given.c.at)
    if "awaited_key" in columns:
        state = case((given.c.awaited_key.is_not(None), becomes("postpone")), else_=state)
    source = (
        select(
            *(given.c[name] for name in plain),
            state,
            run_at,
            seconds_from_now(given.c.deadline),
            *expiry,
        )
        .where(given.c.place >= 0)  # Without a WHERE, SQLite parses ON CONFLICT as a join's ON.
        .order_by(given.c.place)  # Ids are assigned in this order.
    )
    return backend.insert(jobs).from_select(names, source).returning(jobs.c.id, jobs.c.unique_key)


def insert_one(backend: Backend) -> Executable:
    """Insert one job: planned in a fraction of the time of `insert`."""
    given = given_values(NEW)
    state, run_at = due(given["delay"], given["at"])
    plain = {name: value for name, value in given.items() if name not in _COMPUTED}
    return (
        backend.insert(jobs)
        .values(
            **plain, state=state, run_at=run_at, deadline_at=seconds_from_now(given["deadline"])
        )
        .returning(jobs.c.id, jobs.c.unique_key)
    )


def given_values(columns: Columns) -> dict[str, ColumnElement[Any]]:
    """Return a typed parameter `in_…` for each column."""
    return {  # No CAST for instants: SQLite would convert their text to a number.
        name: parameter if isinstance(type_, Instant) else cast(parameter, type_)
        for name, type_ in columns.items()
        for parameter in (bindparam(f"in_{name}", type_=type_),)
    }


def insert_plain() -> Executable:
    """Insert one job that is due now, without key or deadline: the table's defaults suffice."""
    return (
        sql_insert(jobs)
        .values({name: bindparam(f"in_{name}", type_=NEW[name]) for name in PLAIN_COLUMNS})
        .returning(jobs.c.id)
    )


def due(delay: ColumnElement[Any], at: ColumnElement[Any]) -> tuple[ColumnElement[Any], ...]:
    """Return the state and run_at of a new job. `delay` is seconds."""
    future = or_(delay > 0, and_(at.is_not(None), at > now()))
    state = case(
        (future, literal_column(f"'{State.SCHEDULED.value}'")),
        else_=literal_column(f"'{State.AVAILABLE.value}'"),
    )
    run_at = func.coalesce(
        type_coerce(at, INSTANT), case((delay.is_not(None), after(delay)), else_=now())
    )
    return state, run_at


def seconds_from_now(seconds: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the instant that lies the seconds from now; null without seconds."""
    return case((seconds.is_not(None), after(seconds)), else_=null())
