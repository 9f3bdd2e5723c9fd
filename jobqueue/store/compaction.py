"""Compaction: the counts that transactions append are added up, and the old ones deleted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import add, itemgetter
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    RowMapping,
    Select,
    Table,
    and_,
    delete,
    insert,
    or_,
    select,
)

from jobqueue.store.clock import after, once, this_minute
from jobqueue.store.database import Store
from jobqueue.store.schema import CounterKind, counters, error_counts
from jobqueue.store.sql.rows import COUNTS

DAY = 86_400.0
MINUTES_KEPT = DAY
"""Seconds for which counters are kept by minute; totals are kept for ever."""
HOURS_KEPT = 7 * DAY + 3600
"""Seconds for which errors are counted by hour."""
ERRORS_KEPT = 90 * DAY
"""Seconds after its last error for which a kind of error is known."""

Fold = Callable[[Any, Any], Any]


def _latest(_older: Any, newer: Any) -> Any:
    return newer


@dataclass(frozen=True)
class Ledger:
    """A table of counts: what one is of, when it was written, and how two become one."""

    table: Table
    key: tuple[str, ...]
    period: Column[Any]
    written: Column[Any]
    folds: Mapping[str, Fold]
    kept: float
    """Seconds for which counts are kept by period."""
    totals_kept: float | None = None
    """Seconds since `written` for which totals are kept; None: for ever."""


LEDGERS = (
    Ledger(
        counters,
        ("queue", "task"),
        counters.c.minute,
        counters.c.minute,
        {
            name: max if name.endswith("_max") else add
            for name in COUNTS
            if name not in ("queue", "task")
        },
        MINUTES_KEPT,
    ),
    Ledger(
        error_counts,
        ("error_id",),
        error_counts.c.hour,
        error_counts.c.last_at,
        {
            "attempts": add,
            "failed": add,
            "first_at": min,
            "last_at": max,
            "message": _latest,
        },
        HOURS_KEPT,
        ERRORS_KEPT,
    ),
)


def compact(store: Store, ledger: Ledger, limit: int) -> int:
    """Add up what was written before this minute, into totals and into rows per period.

    Return the number of rows that it replaced or deleted.
    """
    return _add_up(store, ledger, limit) + _forget(store, ledger)


def _add_up(store: Store, ledger: Ledger, limit: int) -> int:
    of = ledger.table.c
    written = (
        select(ledger.table)
        .where(of.kind == CounterKind.WRITTEN, ledger.written < once(this_minute()))
        .order_by(ledger.period)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )

    def work(connection: Connection) -> int:
        rows = sorted(connection.execute(written).mappings(), key=itemgetter("id"))
        if not rows:
            return 0
        keys = {_key(ledger, row) for row in rows}
        # Skip a sum that another worker has locked: readers add up two as well as one.
        old = [
            row
            for row in connection.execute(_sums_of(ledger, rows)).mappings()
            if _key(ledger, row) in keys
        ]
        totals = [row for row in old if row["kind"] == CounterKind.TOTAL]
        periods = [row for row in old if row["kind"] == CounterKind.PERIOD]
        ids = [row["id"] for row in (*rows, *old)]
        connection.execute(delete(ledger.table).where(of.id.in_(ids)))
        new = [
            *_sums(ledger, [*periods, *rows], CounterKind.PERIOD),
            *_sums(ledger, [*totals, *rows], CounterKind.TOTAL),
        ]
        connection.execute(insert(ledger.table), new)
        return len(rows)

    return store.transact_at_once(work)


def _sums_of(ledger: Ledger, rows: Sequence[RowMapping]) -> Select[Any]:
    """Select and lock what these rows are added to: totals, and periods that are not over yet."""
    of = ledger.table.c
    kinds = of.kind == CounterKind.TOTAL
    if ledger.written is not ledger.period:
        periods = sorted({row[ledger.period.name] for row in rows})
        kinds = or_(kinds, and_(of.kind == CounterKind.PERIOD, ledger.period.in_(periods)))
    first = ledger.key[0]
    known = select(ledger.table).where(of[first].in_(sorted({row[first] for row in rows})), kinds)
    return known.with_for_update(skip_locked=True)


def _forget(store: Store, ledger: Ledger) -> int:
    """Delete old periods, which the totals contain, and totals older than `totals_kept`."""
    of = ledger.table.c
    old = [
        delete(ledger.table).where(
            of.kind == CounterKind.PERIOD, ledger.period < once(after(-ledger.kept))
        )
    ]
    if ledger.totals_kept is not None:
        over = ledger.written < once(after(-ledger.totals_kept))
        old.append(delete(ledger.table).where(of.kind == CounterKind.TOTAL, over))
    return store.transact_at_once(
        lambda connection: sum(connection.execute(statement).rowcount for statement in old)
    )


def _key(ledger: Ledger, row: RowMapping) -> tuple[Any, ...]:
    return tuple(row[name] for name in ledger.key)


def _sums(ledger: Ledger, rows: Sequence[RowMapping], kind: CounterKind) -> list[dict[str, Any]]:
    """Return one summed row per key, and of periods per period; a total has the earliest period."""
    period = ledger.period.name
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = _key(ledger, row) + ((row[period],) if kind is CounterKind.PERIOD else ())
        total = sums.get(key)
        if total is None:
            sums[key] = {**row, "kind": kind}
            continue
        for name, fold in ledger.folds.items():
            total[name] = fold(total[name], row[name])
        total[period] = min(total[period], row[period])
    return [{name: total[name] for name in total if name != "id"} for total in sums.values()]
