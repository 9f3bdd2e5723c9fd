"""Infinite numbers that plain SQL may write: they hide no other row, and stop no worker."""

import json
from typing import Any

import pytest

from jobqueue.records import JobFilter
from jobqueue.store.audit import Audit
from jobqueue.store.doctor import examine
from jobqueue.store.stats import Monitor
from jobqueue.store.why import explain
from tests.store.conftest import StoreKit


def write(kit: StoreKit, *statements: str) -> None:
    with kit.store.write() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def read_all(kit: StoreKit) -> list[Any]:
    """What operators see of a database; JSON has no infinity, and no NaN."""
    monitor = Monitor(kit.store)
    found = [
        *(monitor.stats(), monitor.queues(), monitor.workers_json(), monitor.tasks()),
        *(monitor.recent_tasks(9), monitor.utilisation(9), monitor.running(9)),
        *(Audit(kit.store).find(None), examine(kit.store).to_json()),
        *(record.to_json() for record in kit.jobs.find(JobFilter())),
        *(explain(kit.jobs, record.id) for record in kit.jobs.find(JobFilter())),
    ]
    json.dumps(found, allow_nan=False, default=str)
    return found


@pytest.mark.parametrize("lease", ["1e300", "-1e300", "9e999", "-9e999"])
def test_a_lease_without_end_hides_no_other_worker(
    kit: StoreKit, backend_name: str, lease: str
) -> None:
    if backend_name == "postgres":
        lease = f"'{lease.replace('9e999', 'Infinity')}'"
    kit.worker()
    before = read_all(kit)
    columns = "(name, host, pid, tasks, concurrency, lease)"
    write(
        kit, f"INSERT INTO jobqueue_workers {columns} VALUES ('w', 'h', 7, '[\"add\"]', 1, {lease})"
    )
    assert len(read_all(kit)) == len(before)
    assert Monitor(kit.store).live_workers() == 1
    assert len(Monitor(kit.store).workers()) == 2


@pytest.mark.parametrize("name", ["duration", "wait"])
def test_sums_of_infinite_times_are_shown_as_numbers(
    kit: StoreKit, backend_name: str, name: str
) -> None:
    numbers = ("9e999", "-9e999") if backend_name == "sqlite" else ("'Infinity'", "'-Infinity'")
    at = "2026-01-01 00:00:00"
    for both in (numbers[:1], numbers[1:], numbers):
        for number in both:
            columns = f"(minute, queue, task, succeeded, runs, {name}, {name}_max)"
            row = f"('{at}', 'default', 'add', 1, 1, {number}, {number})"
            write(kit, f"INSERT INTO jobqueue_counters {columns} VALUES {row}")
        (task,) = Monitor(kit.store).tasks()
        assert task["succeeded"] > 0
        assert task[f"avg_{name}"] in (0.0, None)
    read_all(kit)
