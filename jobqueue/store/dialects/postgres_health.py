"""What `doctor` asks of a PostgreSQL server."""

from collections.abc import Iterator

from sqlalchemy import Engine, text

from jobqueue.doctor_findings import Finding, finding
from jobqueue.store.schema import PREFIX

DEAD_ROWS = 100_000
"""Dead rows from which on a table is reported, if they outnumber its live ones."""
SNAPSHOT_SECONDS = 600.0
"""Seconds for which a transaction may be open."""

_DEAD = text(
    "SELECT relname, n_live_tup AS live, n_dead_tup AS dead, last_autovacuum IS NULL AS never"
    " FROM pg_stat_user_tables WHERE schemaname = current_schema()"
    " AND starts_with(relname, :prefix) AND n_dead_tup > :most AND n_dead_tup > n_live_tup"
    " ORDER BY n_dead_tup DESC"
)
_HOLDERS = text(
    "SELECT pid, usename, application_name, state,"
    " CAST(extract(epoch FROM clock_timestamp() - xact_start) AS integer) AS seconds"
    " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'"
    " AND xact_start < clock_timestamp() - :seconds * INTERVAL '1 second' ORDER BY xact_start"
)
_INVALID = text(
    "SELECT index.relname AS index FROM pg_index"
    " JOIN pg_class AS index ON index.oid = indexrelid JOIN pg_class AS of ON of.oid = indrelid"
    " WHERE NOT indisvalid AND starts_with(of.relname, :prefix) ORDER BY 1"
)


def vacuum(engine: Engine, _processes: int) -> Iterator[Finding]:
    """Tell tables of which most rows are dead: each claim reads past them."""
    with engine.connect() as connection:
        rows = connection.execute(_DEAD, {"prefix": PREFIX, "most": DEAD_ROWS}).all()
    for row in rows:
        never = ", and autovacuum has never been there" if row.never else ""
        yield finding(
            "vacuum",
            f"{row.relname} has {row.dead:,} dead rows beside {row.live:,} live ones{never}: "
            "claims slow down",
            f"VACUUM (ANALYZE) {row.relname};",
            [row.relname],
        )


def held_snapshot(engine: Engine, _processes: int) -> Iterator[Finding]:
    """Report transactions that stay open: vacuum removes nothing that they may see."""
    with engine.connect() as connection:
        rows = connection.execute(_HOLDERS, {"seconds": SNAPSHOT_SECONDS}).all()
    for row in rows:
        name = f" ({row.application_name})" if row.application_name else ""
        yield finding(
            "held_snapshot",
            f"process {row.pid} of user {row.usename}{name} is {row.state}, in a transaction of "
            f"{row.seconds:,} s: dead rows cannot be removed",
            f"SELECT pg_terminate_backend({row.pid});",
            [row.pid],
        )


def invalid_index(engine: Engine, _processes: int) -> Iterator[Finding]:
    """Report invalid indexes, such as of a CREATE INDEX CONCURRENTLY that failed."""
    with engine.connect() as connection:
        rows = connection.execute(_INVALID, {"prefix": PREFIX}).all()
    for row in rows:
        yield finding(
            "invalid_index",
            f"the index {row.index} is invalid: no statement uses it",
            f"REINDEX INDEX CONCURRENTLY {row.index};",
            [row.index],
        )


CHECKS = (vacuum, held_snapshot, invalid_index)
