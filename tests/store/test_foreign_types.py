"""SQLite's columns take values of any type: each is read as its column's, and stops no worker."""

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import literal_column, select, text, type_coerce
from sqlalchemy.types import TypeDecorator

from jobqueue import JobQueue
from jobqueue.records import names_in
from jobqueue.store.audit import Audit
from jobqueue.store.schema import metadata
from jobqueue.store.stats import Monitor
from tests.store.conftest import StoreKit

pytestmark = pytest.mark.databases("sqlite")  # PostgreSQL's types refuse them.
KINDS: dict[type, Any] = {float: (float, int), int: int, str: str, datetime: datetime}


@pytest.mark.parametrize("written", ["x'ff'", "x'35'", "'5x'", "9e999", "-9e999", "2.5", "7"])
def test_each_column_is_read_as_its_own_type(kit: StoreKit, written: str) -> None:
    with kit.store.read() as connection:
        for table in metadata.tables.values():
            found = [type_coerce(literal_column(written), each.type) for each in table.c]
            row = connection.execute(select(*found)).one()
            for column, value in zip(table.c, row, strict=True):
                type_ = column.type
                own = type_.impl if isinstance(type_, TypeDecorator) else type_
                assert value is None or isinstance(value, KINDS[own.python_type]), column
                assert value != float("inf"), column


@pytest.mark.parametrize(
    "row",
    [
        "jobqueue_pauses (kind, name, paused_at) VALUES ('task', 'none', x'ff')",
        "jobqueue_pauses (kind, name) VALUES (x'ff', x'ff')",
        "jobqueue_queues (name, paused_at) VALUES (x'ff', x'ff')",
        "jobqueue_schedules (name, task, kind, expression, catch_up, overlap, source, next_at)"
        " VALUES (x'ff', 'add', x'ff', x'ff', x'ff', x'ff', x'ff', '2026-01-01 00:00:00')",
        "jobqueue_counters (minute, queue, task, succeeded) VALUES (x'ff', x'ff', x'ff', x'ff')",
    ],
)
def test_a_row_of_bytes_stops_no_worker(url: str, row: str, wait_until: Any) -> None:
    with JobQueue(url) as jobs:

        @jobs.task
        def add(x: int, y: int) -> int:
            return x + y

        with jobs.store.write() as connection:
            connection.execute(text(f"INSERT INTO {row}"))
        with jobs.worker(poll=0.05) as worker:
            assert add.enqueue(2, 3).result(timeout=30) == 5
            wait_until(lambda: not any(each.failing for each in worker.health.services))
        stats = Monitor(jobs.store).stats()
        assert "default" in [each["queue"] for each in stats["queues"]]


def test_names_that_are_not_a_list_hide_no_other_worker(kit: StoreKit) -> None:
    kit.worker()
    with kit.store.write() as connection:
        lease = "(name, host, pid, concurrency, lease, tasks, queues)"
        for wrong in ("7", "[", "[" * 100_000, '{"a": 1}', "null"):
            row = {"wrong": wrong}
            values = "('w', 'h', 7, 1, 60, :wrong, :wrong)"
            connection.execute(text(f"INSERT INTO jobqueue_workers {lease} VALUES {values}"), row)
    assert len(Monitor(kit.store).workers()) == 6
    assert Monitor(kit.store).known_by()["add"] == 1
    assert names_in("[1, null]") == ("1", "None")


def test_an_action_whose_target_is_nested_too_deep_hides_no_other(kit: StoreKit) -> None:
    with kit.store.write() as connection:
        for target in ('{"queue": "mail"}', "[" * 100_000):
            row = {"target": target}
            statement = (
                "INSERT INTO jobqueue_audit (actor, verb, target) VALUES ('a', 'v', :target)"
            )
            connection.execute(text(statement), row)
    assert [row["about"] for row in Audit(kit.store).find(None)] == ["", "queue mail"]
