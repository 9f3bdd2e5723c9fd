"""Upgrading a database that an older version has made and filled; each test on both databases."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, insert, text

from jobqueue.store.clock import INSTANT
from jobqueue.errors import SchemaOutdated
from jobqueue.loggers import quiet
from jobqueue.records import NewJob
from jobqueue.store.schema import REVISION, VERSION_TABLE, metadata
from jobqueue.store import migrate
from jobqueue.store.jobs import Jobs
from jobqueue.store.database import Store
from jobqueue.store.leases import Upkeep
from jobqueue.store.urls import backend_of, parse

NOW = datetime.now(UTC).replace(second=0, microsecond=0)


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    backend = backend_of(parse(url))
    engine = backend.engine(parse(url), 1, makes=True)
    try:
        with backend.writing(engine) as connection:
            yield connection
    finally:
        engine.dispose()


def make(url: str, revision: str) -> None:
    """The schema as it was at a revision."""
    with connected(url) as connection:
        scripts = ScriptDirectory(str(migrate.folder()))
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "fn": lambda heads, _: scripts._upgrade_revs(revision, heads),
            },
        )
        with Operations.context(context):
            context.run_migrations()


class Old:
    """Writes into a database of an older schema, whose tables are as they are found there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._metadata = MetaData()

    def table(self, name: str) -> Table:
        table = Table(f"jobqueue_{name}", self._metadata, autoload_with=self._connection)
        for column in table.c:  # Text on SQLite, and both databases take an Instant.
            if isinstance(metadata.tables[table.name].c[column.name].type, type(INSTANT)):
                column.type = INSTANT
        return table

    def add(self, name: str, /, **values: Any) -> int | None:
        result = self._connection.execute(insert(self.table(name)).values(values))
        return result.inserted_primary_key[0]


def rows(url: str, name: str) -> list[dict[str, Any]]:
    with connected(url) as connection:
        found = connection.execute(text(f"SELECT * FROM {name}")).mappings()
        return sorted((dict(row) for row in found), key=repr)


def fill(old: Old) -> None:
    """Jobs in every state, attempts, a worker, a paused queue, and counts at every level."""
    worker = old.add("workers", name="w", host="h", pid=1, tasks="[]", concurrency=4, lease=30.0)
    for state in ("scheduled", "available", "running", "succeeded", "failed", "cancelled"):
        held = {"worker_id": worker, "worker": "w"} if state == "running" else {}
        final = state in ("succeeded", "failed", "cancelled")
        began = {} if state in ("scheduled", "available") else {"attempt": 1, "fence": 1 + final}
        old.add("jobs", task="t", state=state, finished_at=NOW if final else None, **held, **began)
    error = {"outcome": "errored", "error_type": "E", "error_message": "m"}
    old.add("attempts", job_id=5, fence=1, attempt=1, finished_at=NOW, **error)
    old.add("queues", name="quiet", paused_at=NOW)
    for n, (fold, age) in enumerate([(2, 9), (2, 8), (1, 1.5), (1, 0.5), (1, 0.5), (0, 0), (0, 0)]):
        at = NOW - timedelta(days=age, minutes=1)
        sums = {"succeeded": 10**n, "runs": 10**n, "duration": 2.0 * 10**n, "duration_max": n}
        old.add("counters", minute=at, queue="default", task="t", fold=fold, **sums)


def test_a_filled_database_keeps_all_that_is_in_it(empty_url: str) -> None:
    make(empty_url, "0001")
    with connected(empty_url) as connection:
        fill(Old(connection))
    names = ("jobs", "attempts", "workers", "queues", "counters", "meta")
    before = {name: rows(empty_url, f"jobqueue_{name}") for name in names}

    assert migrate.upgrade(empty_url) == ("0001", REVISION)
    assert migrate.differences(empty_url) == []
    for name in names:
        after = rows(empty_url, f"jobqueue_{name}")
        common = before[name][0].keys()
        assert [{key: row[key] for key in common} for row in after] == before[name], name


def totals(url: str) -> list[list[dict[str, Any]]]:
    """What the views say that does not change with time."""
    views = [rows(url, name) for name in ("jobqueue_queue_stats", "jobqueue_task_stats")]
    return [
        [
            {key: row[key] for key in row if not key.startswith(("oldest", "max_pending"))}
            for row in view
        ]
        for view in views
    ]


def test_totals_and_minutes_stay_when_counts_of_an_older_version_are_added_up(
    empty_url: str,
) -> None:
    make(empty_url, "0001")
    with connected(empty_url) as connection:
        fill(Old(connection))
    before = totals(empty_url)
    assert before[1][0]["succeeded"] == 1_111_111
    migrate.upgrade(empty_url)
    assert totals(empty_url) == before
    minutes = rows(empty_url, "jobqueue_throughput")
    assert sorted(row["succeeded"] for row in minutes) == [100, 11_000, 1_100_000]

    store = Store(empty_url)
    assert Upkeep(store).fold() > 0
    store.close()
    assert totals(empty_url) == before
    kept = [row for row in minutes if row["succeeded"] != 100]  # That one is older than a day.
    assert rows(empty_url, "jobqueue_throughput") == kept


@pytest.mark.parametrize("backend_name", ["postgres"])
@pytest.mark.parametrize("column", ["run_at", "created_at"])
def test_an_upgrade_names_the_job_whose_instant_no_worker_can_read_and_changes_nothing(
    empty_url: str, column: str
) -> None:
    make(empty_url, "0001")
    insertion = f"INSERT INTO jobqueue_jobs (task, {column}) VALUES ('add', 'infinity')"
    with connected(empty_url) as connection:
        fill(Old(connection))
        connection.execute(text(insertion))
    message = f"nothing was changed: {column} of job 7 is infinity.* UPDATE jobqueue_jobs"
    with pytest.raises(SchemaOutdated, match=message) as refused:
        migrate.upgrade(empty_url)
    assert "\n" not in str(refused.value)

    remedy = str(refused.value).partition("for example, ")[2]
    with connected(empty_url) as connection:
        assert migrate.found(connection) == "0001"
        connection.execute(text(remedy))
    assert migrate.upgrade(empty_url) == ("0001", REVISION)


def test_keys_that_are_held_until_the_start_stay_with_who_held_them(empty_url: str) -> None:
    """By the rule of schema 0001 the first claim gave a key up, so that another job may have it."""
    make(empty_url, "0001")
    keyed = {"task": "t", "unique_until": "started"}
    with connected(empty_url) as connection:
        old = Old(connection)
        old.add("jobs", unique_key="waits", **keyed)
        old.add("jobs", unique_key="passed on", state="scheduled", fence=2, **keyed)
        old.add("jobs", unique_key="passed on", **keyed)
        old.add("jobs", unique_key="cancelled", state="cancelled", finished_at=NOW, **keyed)
        old.add("jobs", unique_key="given up", state="failed", fence=2, finished_at=NOW, **keyed)
    migrate.upgrade(empty_url)
    begun = {row["id"]: row["begun"] for row in rows(empty_url, "jobqueue_jobs")}
    assert begun == {1: 0, 2: 1, 3: 0, 4: 0, 5: 1}

    store = Store(empty_url)
    new = NewJob("t", "q", 0, "{}", None, None, None, 10, None, None, "", "started")
    keys = ("waits", "passed on", "cancelled", "given up")
    made = Jobs(store).insert([new._replace(unique_key=key) for key in keys])
    store.close()
    assert [(one.id, one.created) for one in made][:2] == [(1, False), (3, False)]
    assert [one.created for one in made[2:]] == [True, True]


def test_making_the_schema_says_nothing_to_an_application_that_logs(
    empty_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with ThreadPoolExecutor() as others:
        logger = logging.getLogger("alembic.runtime.migration")
        with quiet(logger.name):
            others.submit(logger.info, "a migration of the application's own").result()
            logger.warning("something is wrong")
        migrate.upgrade(empty_url)
    assert [record.getMessage() for record in caplog.records] == [
        "a migration of the application's own",
        "something is wrong",
    ]
