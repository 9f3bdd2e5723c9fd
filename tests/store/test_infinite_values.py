"""Infinite instants and numbers that plain SQL may write: they hide no other row, and stop no worker."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import literal_column, select, text, type_coerce

from jobqueue.records import JobFilter
from jobqueue.store.audit import Audit
from jobqueue.store.clock import EARLIEST, INSTANT, LATEST, Instant
from jobqueue.store.doctor import examine
from jobqueue.store.schema import metadata
from jobqueue.store.stats import Monitor
from jobqueue.store.why import explain
from tests.store.conftest import DATA, StoreKit

MADE = (
    "jobs (task, state, fence, worker_id, worker, started_at, attempt)"
    " SELECT 'add', 'running', 1, id, name, clock_timestamp(), 1 FROM jobqueue_workers",
    "attempts (job_id, fence, attempt, finished_at, outcome)"
    " VALUES (1, 1, 1, clock_timestamp(), 'errored')",
    "queues (name, paused_at) VALUES ('mail', clock_timestamp())",
    "pauses (kind, name) VALUES ('task', 'none')",
    "audit (actor, verb, target) VALUES ('ada', 'pause', '{}')",
    "counters (minute, queue, task) VALUES (clock_timestamp(), 'default', 'add')",
    "history (minute, worker, task) VALUES (clock_timestamp(), 'mia', '')",
    "error_counts (hour, error_id, task, error_type, first_at, last_at)"
    " VALUES (clock_timestamp(), 'e', 'add', 'OSError', clock_timestamp(), clock_timestamp())",
)


def write(kit: StoreKit, *statements: str) -> None:
    with kit.store.write() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def read_all(kit: StoreKit) -> list[Any]:
    """What operators see of a database; JSON has no infinity, and no NaN."""
    monitor = Monitor(kit.store)
    found = [
        *(monitor.stats(), monitor.workers_json(), monitor.tasks()),
        *(monitor.recent_tasks(9), monitor.utilisation(9), monitor.running(9)),
        *(Audit(kit.store).find(None), examine(kit.store).to_json()),
        *(record.to_json() for record in kit.jobs.find(JobFilter())),
        *(explain(kit.jobs, record.id) for record in kit.jobs.find(JobFilter())),
    ]
    json.dumps(found, allow_nan=False, default=str)
    return found


@pytest.mark.databases("postgres")
@pytest.mark.parametrize("value", ["infinity", "-infinity"])
def test_an_infinite_instant_in_any_row_hides_none_and_stops_no_worker(
    kit: StoreKit, value: str
) -> None:
    kit.worker()
    write(kit, *(f"INSERT INTO jobqueue_{each}" for each in MADE))
    before = len(read_all(kit))
    for name in DATA:
        of = metadata.tables[f"jobqueue_{name}"].c
        instants = {each.name for each in of if isinstance(each.type, Instant)}
        instants -= {"run_at", "created_at"} if name == "jobs" else set()  # Refused by a check.
        changes = ", ".join(f"{each} = '{value}'" for each in sorted(instants))
        write(kit, f"UPDATE jobqueue_{name} SET {changes}")
    assert len(read_all(kit)) == before
    job = kit.add()
    assert [claim.id for claim in kit.take(kit.worker())] == [job]
    kit.maintenance.expire()
    kit.maintenance.promote()


@pytest.fixture
def read_in(kit: StoreKit) -> Iterator[Callable[[str, str], Any]]:
    """A function that reads an instant in a session of another time zone."""

    def read_in(zone: str, value: str) -> Any:
        connection.execute(text(f"SET LOCAL TimeZone = '{zone}'"))
        written = type_coerce(literal_column(f"CAST('{value}' AS timestamptz)"), INSTANT)
        return connection.execute(select(written)).scalar_one()

    with kit.store.read() as connection:
        yield read_in


@pytest.mark.databases("postgres")
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Europe/Zurich"])
def test_an_instant_of_any_offset_and_fraction_is_read_in_utc(
    read_in: Callable[[str, str], Any], zone: str
) -> None:
    """Zurich was at 00:34:08 in 1850."""
    for digits in range(7):
        fraction = "123456"[:digits]
        read = read_in(zone, f"1850-01-01 00:00:00.{fraction}+00")
        assert read == datetime(1850, 1, 1, 0, 0, 0, int(f"{fraction:0<6}"), UTC)
        assert read.tzinfo is UTC


@pytest.mark.databases("postgres")
@pytest.mark.parametrize("zone", ["UTC", "Etc/GMT-14", "Etc/GMT+12"])
def test_an_instant_beyond_pythons_years_is_read_as_a_bound_in_every_time_zone(
    read_in: Callable[[str, str], Any], zone: str
) -> None:
    late = [read_in(zone, value) for value in ("infinity", "10000-01-01 00:00:00+00")]
    early = [read_in(zone, value) for value in ("-infinity", "0044-03-15 12:00:00+00 BC")]
    assert (late, early) == ([LATEST] * 2, [EARLIEST] * 2)
    assert read_in(zone, "9999-12-31 23:59:59+00") >= LATEST
    assert read_in(zone, "0001-01-01 00:00:00+00") <= EARLIEST


@pytest.mark.databases("postgres")
def test_a_job_that_expires_at_infinity_never_does(kit: StoreKit) -> None:
    write(
        kit,
        "INSERT INTO jobqueue_jobs (task, expires_at, deadline_at) VALUES ('add', 'infinity', 'infinity'),"
        " ('add', '-infinity', NULL)",
    )
    assert [job.id for job in kit.maintenance.expire()] == [2]
    (claim,) = kit.take(kit.worker())
    assert (claim.id, claim.expires_at, claim.deadline_at) == (1, LATEST, LATEST)


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
