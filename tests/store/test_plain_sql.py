"""What plain SQL may write into the table of jobs: mistakes are refused, or stop no worker."""

import math
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from jobqueue import JobQueue
from jobqueue.queue_switches import rate_of
from jobqueue.records import JobFilter
from jobqueue.states import State
from jobqueue.store.doctor import examine
from jobqueue.store.stats import Monitor
from jobqueue.store.lanes import Lanes
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind, queues
from jobqueue.store.why import explain
from tests.store.conftest import StoreKit

INSERT = "INSERT INTO jobqueue_jobs (task, {0}) VALUES ('add', '{1}')"
EDGES = ["0001-01-02 00:00:00+00", "9999-12-30 23:59:59.999999+00"]
BEYOND = [
    "infinity",
    "-infinity",
    "9999-12-31 00:00:00+00",  # The year 10000 in a session east of Greenwich.
    "10000-01-01 00:00:00+00",
    "0001-01-01 23:59:59+00",
    "0044-03-15 12:00:00+00 BC",
]


def write(kit: StoreKit, sql: str) -> None:
    with kit.store.write() as connection:
        connection.execute(text(sql))


MISTAKES = {
    "state": ("'runing'", "state_is_scheduled_available_running_succeeded_failed_cancelled"),
    "max_attempts": ("0", "max_attempts_is_an_integer_of_at_least_1"),
    "timeout": ("-1", "timeout_is_more_than_0"),
    "priority": ("'high'", "priority_is_an_integer|invalid input syntax for type integer"),
    "run_at": ("'infinity'", "run_at_is_in_"),
}


@pytest.mark.parametrize("column", MISTAKES)
def test_a_mistake_is_refused_at_once_by_the_name_of_what_is_required(
    kit: StoreKit, column: str
) -> None:
    value, named = MISTAKES[column]
    job = kit.add()
    for statement in (
        f"INSERT INTO jobqueue_jobs (task, {column}) VALUES ('add', {value})",
        f"UPDATE jobqueue_jobs SET {column} = {value} WHERE id = {job}",
    ):
        with pytest.raises(DBAPIError, match=named):
            write(kit, statement)
    assert kit.state(job) is State.AVAILABLE


@pytest.mark.databases("sqlite")  # PostgreSQL's types refuse some of them.
@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("timeout", "soon", "timeout_is_more_than_0"),
        ("max_attempts", "2.5", "max_attempts_is_an_integer"),
        ("priority", 1 << 40, "priority_is_an_integer_of_32_bits"),
        ("run_at", "2026-01-31T23:59:59Z", "run_at_is_in_utc_like_2026_01_31_23_59_59"),
        ("run_at", "tomorrow", "run_at_is_in_utc"),
        ("run_at", "now", "run_at_is_in_utc"),
        ("run_at", "2026-13-39 29:59:59", "run_at_is_in_utc"),
        ("run_at", "2026-01-31 23:59:59 or so", "run_at_is_in_utc"),
        ("run_at", "0000-01-01 10:00:00", "run_at_is_in_the_years_1_to_9999"),
        ("run_at", "0001-01-01 00:00:00", "run_at_is_in_the_years_1_to_9999"),
        ("run_at", "9999-12-31 00:00:00", "run_at_is_in_the_years_1_to_9999"),
        ("args", "2, 3", "args_is_json"),
        ("tags", "nightly", "tags_is_json"),
        ("backoff", "slow", "backoff_is_json"),
    ],
)
def test_sqlite_checks_what_its_types_do_not(
    kit: StoreKit, column: str, value: Any, named: str
) -> None:
    with pytest.raises(IntegrityError, match=named):
        write(kit, INSERT.format(column, value))


@pytest.mark.databases("sqlite")
def test_every_past_instant_that_sqlite_lets_in_is_claimed(kit: StoreKit) -> None:
    values = ["0001-01-02 00:00:00", "2026-01-31 23:59:59", "2024-02-29 12:00:00.5"]
    for value in [*values, "2023-02-31 00:00:00", "2024-01-31 24:00:00.123456789"]:
        write(kit, INSERT.format("run_at", value))
    assert len(kit.take(kit.worker())) == 5


@pytest.mark.databases("sqlite")
def test_bytes_that_sqlite_lets_in_for_a_text_are_claimed_as_text(kit: StoreKit) -> None:
    kit.add_many(2)
    write(kit, "UPDATE jobqueue_jobs SET args = CAST(args AS BLOB), headers = CAST('{}' AS BLOB)")
    claims = kit.take(kit.worker())
    assert [(claim.args, claim.headers) for claim in claims] == [
        ('{"args":[],"kwargs":{}}', "{}")
    ] * 2


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("task", "CAST(x'ff' AS TEXT)"),
        ("args", "'[\"' || x'ff' || '\"]'"),
        ("headers", "x'ff'"),
        ("run_at", "'2026-01-31 23:59:59' || char(0)"),
        ("snoozes", "x'31'"),
        ("crashes", "9e999"),
        ("deadline_at", "x'ff'"),
    ],
)
def test_what_sqlite_lets_in_stops_no_claim_of_others(
    kit: StoreKit, column: str, value: str, at_once: bool
) -> None:
    before = kit.add()
    values = {"task": "'add'", column: value}
    write(
        kit, f"INSERT INTO jobqueue_jobs ({','.join(values)}) VALUES ({','.join(values.values())})"
    )
    after, holder = kit.add(), kit.worker()
    claims = kit.claims.claim_first(holder, "default", 3) if at_once else kit.take(holder)
    assert len(claims) == 3
    assert {before, after} < {claim.id for claim in claims}
    assert all(claim.run_at.tzinfo for claim in claims)


@pytest.mark.databases("sqlite")
def test_arguments_that_are_not_utf8_are_refused_and_not_changed(kit: StoreKit) -> None:
    write(kit, "INSERT INTO jobqueue_jobs (task, args) VALUES ('add', '[\"' || x'ff' || '\"]')")
    (claim,) = kit.take(kit.worker())
    assert claim.args == '["\\xff"]'  # not JSON


@pytest.mark.parametrize("column", ["run_at", "created_at", "scheduled_for"])
@pytest.mark.parametrize("value", BEYOND)
def test_an_instant_that_python_cannot_hold_stops_no_claim(
    kit: StoreKit, backend_name: str, column: str, value: str
) -> None:
    before = kit.add()
    named = f"{column}_is_in_the_years_1_to_9999"
    # Text of another form is refused on SQLite, or read as some instant.
    is_text = backend_name == "sqlite"
    is_checked = column in ("run_at", "created_at") and not is_text
    with pytest.raises(IntegrityError, match=named) if is_checked else suppress(IntegrityError):
        write(kit, INSERT.format(column, value))
    after = kit.add()
    holder = kit.worker()
    claims = kit.take(holder)
    assert {before, after} <= {claim.id for claim in claims}
    assert {*kit.finish(holder, *map(kit.succeeded, claims)).values()} == {State.SUCCEEDED}
    assert len(list(kit.jobs.find(JobFilter()))) >= 2


@pytest.mark.databases("postgres")
@pytest.mark.parametrize("zone", ["UTC", "Etc/GMT-14", "Etc/GMT%2B12"])
def test_an_instant_that_is_allowed_can_be_read_in_every_time_zone(
    kit: StoreKit, second_store: Any, zone: str
) -> None:
    for column in ("run_at", "created_at"):
        for value in EDGES:
            write(kit, INSERT.format(column, value))
    there = type(kit)(second_store(TimeZone=zone))
    assert len(there.take(there.worker())) == 4
    assert len(list(there.jobs.find(JobFilter()))) == 4


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ("[2, 3]", (None, None)),
        ('{"args": [2, 3]}', (None, None)),
        ('{"args": 2, "kwargs": {}}', (None, {})),
        ('{"args": [2], "kwargs": []}', ([2], None)),
    ],
)
def test_arguments_of_another_form_are_not_known_and_hide_no_other_job(
    kit: StoreKit, args: str, shown: Any
) -> None:
    other = kit.add()
    write(kit, f"INSERT INTO jobqueue_jobs (task, args) VALUES ('add', '{args}')")
    bad, good = [record.to_json() for record in kit.jobs.find(JobFilter())]
    assert (bad["args"], bad["kwargs"]) == shown
    assert good["id"] == other


@pytest.mark.parametrize("tags", ["7", '"nightly"', '{"nightly": 1}'])
def test_tags_of_another_form_are_none_and_hide_no_other_job(kit: StoreKit, tags: str) -> None:
    other = kit.add()
    write(kit, INSERT.format("tags", tags))
    bad, good = kit.jobs.find(JobFilter())
    assert bad.tags == ()
    assert good.id == other


@pytest.mark.databases("sqlite")  # PostgreSQL's types refuse them.
@pytest.mark.parametrize("wrong", ["'x'", "'5x'", "-1"])
@pytest.mark.parametrize("switch", ["limit", "rate"])
def test_a_switch_that_is_no_number_stops_its_queue_alone_and_is_found(
    url: str, switch: str, wrong: str
) -> None:
    column = {"limit": "max_running", "rate": "rate_count"}[switch]
    given = f"(name, rate_period, rate_burst, max_pending, {{}}) VALUES ('mail', 'y', 'z', 'x', {wrong})"
    with JobQueue(url) as jobs:

        @jobs.task
        def add(x: int, y: int) -> int:
            return x + y

        free = add.enqueue(2, 3)
        with jobs.store.write() as connection:
            connection.execute(text(f"INSERT INTO jobqueue_queues {given.format(column)}"))
        with JobQueue(url) as other:  # It has not read the bound yet.
            calls = [add.options(queue="mail").call(1, 1), add.call(4, 5)]
            held, later = other.enqueue_many(calls)
        with jobs.worker():
            assert free.result(timeout=30) == 5
            assert jobs.get(later.id).result(timeout=30) == 9
            assert jobs.get(held.id).state == State.AVAILABLE
            (found,) = examine(jobs.store).findings
        with jobs.worker(drain=True) as worker:  # Nor does a drain wait for it.
            assert worker.wait(30)
        assert found.sentence == f"queue mail has the {switch} 0: none of its jobs starts"
        assert found.remedy == f"jobqueue queues {switch} mail none"


@pytest.mark.parametrize("period", [None, -1.0, math.inf])
def test_a_rate_without_its_period_is_a_second_everywhere(
    kit: StoreKit, period: float | None
) -> None:
    (first, _), holder = kit.add_many(2, queue="mail"), kit.worker()
    with kit.store.write() as connection:
        connection.execute(text("DELETE FROM jobqueue_lanes"))
        given = {"name": "mail", "rate_count": 5, "rate_period": period}
        connection.execute(queues.insert().values(given))
        claimed = Lanes(kit.store).claim(connection, holder, "mail", 9).claims
    assert [claim.id for claim in claimed] == [first]
    (row,) = Monitor(kit.store).bounded_queues()
    assert str(rate_of(row)) == "5/second"


@pytest.mark.parametrize("limit", ["'many'", "-1"])
def test_a_limit_of_a_queue_that_is_not_one_holds_up_no_drain_and_is_found(
    kit: StoreKit, limit: str
) -> None:
    if limit == "'many'" and not kit.store.backend.single_writer:
        limit = "-2"  # PostgreSQL takes no text for a number.
    kit.worker()
    kit.add()
    write(kit, f"INSERT INTO jobqueue_queues (name, max_running) VALUES ('default', {limit})")
    assert kit.maintenance.left_behind(None, ("add",)) == {"with a limit of 0": 1}
    found = [finding.sentence for finding in examine(kit.store).findings]
    assert "queue default has the limit 0: none of its jobs starts" in found


@pytest.mark.parametrize("is_any_paused", [False, True])
@pytest.mark.parametrize("limit", ["'many'", "'5x'", "2.5", "-1"])
def test_a_limit_of_a_key_that_is_not_one_is_a_pause_and_hides_no_other_job(
    kit: StoreKit, limit: str, is_any_paused: bool
) -> None:
    if not kit.store.backend.single_writer:
        limit = "-1"  # PostgreSQL has only whole numbers there.
    with kit.store.write() as connection:
        connection.execute(text("DELETE FROM jobqueue_lanes"))
        connection.execute(text(
            "INSERT INTO jobqueue_jobs (task, lane, lane_limit, lane_weight, lane_strict)"
            f" VALUES ('add', 'k', {limit}, -1, 2)"
        ))  # fmt: skip
    kit.change(other := kit.add(), lane="k", lane_limit=1)
    if is_any_paused:
        Pauses(kit.store).pause(PauseKind.TASK, "none")
    lanes, holder = Lanes(kit.store), kit.worker()
    lanes.sweep()
    with kit.store.write() as connection:
        assert [claim.id for claim in lanes.claim(connection, holder, "default", 9).claims] == [
            other
        ]
    why = explain(kit.jobs, other - 1)
    assert why is not None
    assert why.sentence == "lane k has the limit 0"
    assert kit.maintenance.left_behind(None, ("add",)) == {"with a limit of 0": 1}
