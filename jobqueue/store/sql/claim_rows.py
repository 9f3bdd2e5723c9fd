"""What a claim returns: as rows of columns, or as one text of JSON; and the claims made of them."""

from collections.abc import Callable, Iterable, Sequence
from json import loads
from typing import Any

from msgspec.json import Decoder
from msgspec.structs import FieldInfo, fields, replace
from sqlalchemy import (
    ColumnElement,
    Executable,
    Select,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    select,
    type_coerce,
)
from sqlalchemy.types import NullType

from jobqueue.records import Aware, Claim
from jobqueue.store.clock import json_list, now, once, read_text
from jobqueue.store.schema import jobs
from jobqueue.store.sql.predicates import FREES_KEY, ONCE, SOLO, USUAL

_CLAIMED = [
    *("id", "fence", "task", "queue", "args", "attempt", "max_attempts"),
    *("run_at", "started_at", "timeout", "headers", "priority"),
]

_LONG = 10_000  # characters


def claim_columns() -> list[ColumnElement[Any]]:
    """Return the columns that `read_claims` reads, as the driver has them.

    What few jobs have is one column, null for the others: a column costs 0.1 µs of a claim, and
    SQLAlchemy's conversion of one makes it look at each of a row.
    """
    rare = json_list(
        *(_typed(jobs.c[name]) for name in ("backoff", "snoozes", "crashes", "child_crashes")),
        *(SOLO, ONCE, FREES_KEY),
        *(_typed(jobs.c[name]) for name in ("deadline_at", "scheduled_for", "expires_at")),
    )
    return [
        *(type_coerce(jobs.c[name], NullType()).label(name) for name in _CLAIMED),
        case((USUAL, null()), else_=rare).label("rare"),
    ]


def _typed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column as its type: JSON holds no BLOB, which plain SQL may write on SQLite."""
    return cast(column, column.type)


def read_claims(
    rows: Iterable[Sequence[Any]], worker_id: int, instant: Callable[[Any], Any]
) -> list[Claim]:
    """Return the claims of a lease, of rows of `claim_columns`.

    `instant` reads the driver's form of an instant.
    """
    claims = []
    for id_, fence, task, queue, args, attempt, most, due, at, timeout, headers, rank, rare in rows:
        claim = Claim(
            id_,
            fence,
            task,
            queue,
            args,
            attempt,
            most,
            instant(due),
            instant(at),
            timeout,
            headers,
            rank,
            worker_id,
        )
        claims.append(claim if rare is None else _with_rare(claim, rare))
    return claims


def _with_rare(claim: Claim, text: str) -> Claim:
    """Return a claim with the values of `json_list` in `claim_columns`."""
    try:
        values = loads(text)
    except ValueError:  # A byte that is not UTF-8 stands in it as \xff.
        values = loads(text.replace("\\x", "\\\\x"))
    backoff, snoozes, crashes, child_crashes, *others = values
    immediate_only, at_most_once, frees_key, deadline, tick, expires = others
    return replace(
        claim,
        backoff=backoff,
        snoozes=snoozes,
        crashes=crashes,
        child_crashes=child_crashes,
        immediate_only=bool(immediate_only),
        at_most_once=bool(at_most_once),
        releases_key_on_start=bool(frees_key),
        deadline_at=read_text(deadline),
        scheduled_for=read_text(tick),
        expires_at=read_text(expires),
    )


def claimable_rows(found: Select[Any]) -> Executable:
    """Select jobs with the values that a claim is going to write, where nobody else can claim them.

    In rows, which `read_claims` reads, whatever plain SQL has written into them.
    """
    columns = {column.name: column for column in claim_columns()}
    columns |= {name: (jobs.c[name] + 1).label(name) for name in ("fence", "attempt")}
    columns["started_at"] = type_coerce(once(now()), NullType()).label("started_at")
    return found.with_only_columns(*columns.values())


def claimable_text(found: Select[Any]) -> Executable:
    """Select what `claimable_rows` does as one text of JSON; NULL without jobs.

    500 jobs are written into it, and read from it, in two thirds of the time of 500 rows; but those
    with long arguments in twice the time. Of these it has none, so that they are read as rows.
    """
    given: dict[str, ColumnElement[Any]] = {
        "fence": jobs.c.fence + 1,
        "args": case((func.length(jobs.c.args) <= _LONG, jobs.c.args)),
        "attempt": jobs.c.attempt + 1,
        "started_at": once(now()),
        "worker_id": bindparam("in_worker"),
        "immediate_only": SOLO,
        "at_most_once": ONCE,
        "releases_key_on_start": FREES_KEY,
    }
    values = [
        _in_json(field, given[field.name] if field.name in given else jobs.c[field.name])
        for field in fields(Claim)
    ]
    usual = [value for value, field in zip(values, fields(Claim), strict=True) if field.required]
    text = case((USUAL, func.json_array(*usual)), else_=func.json_array(*values))
    claims = found.with_only_columns(text.label("claim")).subquery("found")
    return select(literal("[").concat(func.group_concat(claims.c.claim)).concat("]"))


def _in_json(field: FieldInfo, value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the JSON value of a claim's field."""
    if field.type is bool:
        return func.json(case((value, "true"), else_="false"))
    if field.type in (Aware, Aware | None):
        return type_coerce(value, Text()).concat("Z")
    # Checks refuse other types in the numbers that each job has.
    is_number = field.required and field.type not in (str, str | None)
    return value if is_number else _typed(value)


decode_claims = Decoder(list[Claim]).decode
"""Returns the claims of `claimable_text`.

Raises MsgspecError if plain SQL has written a value of another type.
"""
