"""Schedules in the database: what code declares, what operators change, and who wins."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from jobqueue import InvalidArguments, InvalidOption, JobQueue, cron, every, exponential, fixed
from jobqueue.schedules.scheduled_calls import call_of, declared, definition_of
from jobqueue.schedules.definition import ScheduleRecord
from jobqueue.store.database import Store
from jobqueue.store.schema import schedules
from jobqueue.store.schedule_ticks import Ticks

DAY = timedelta(days=1)


@pytest.fixture
def jobs(url: str) -> Iterator[JobQueue]:
    with JobQueue(url) as queue:

        @queue.task(queue="mail", priority=3)
        def sync(tenant: int) -> int:
            return tenant

        yield queue


@pytest.fixture
def code(url: str) -> Iterator[Callable[..., JobQueue]]:
    """A function that starts a worker of an app whose task `report` has these options."""
    queues = []

    def start(**options: Any) -> JobQueue:
        queue = JobQueue(url)
        queues.append(queue)

        @queue.task(**options)
        def report() -> None: ...

        Ticks(queue.store).declare(declared(queue.registry), list(queue.registry))
        return queue

    yield start
    for queue in queues:
        queue.close()


def shape(record: ScheduleRecord) -> tuple[str, str, bool, bool]:
    return record.definition.describe(), record.source, record.differs, bool(record.orphaned_at)


def set_columns(queue: JobQueue, name: str, **values: Any) -> None:
    with queue.store.write() as connection:
        connection.execute(update(schedules).where(schedules.c.name == name).values(values))


def test_what_the_code_declares_is_written_once_and_follows_the_code(
    code: Callable[..., JobQueue],
) -> None:
    jobs = code(schedule=every(hours=1))
    first = jobs.schedules.get("report")
    assert shape(first) == ("every 1h", "code", False, False)
    jobs.schedules.pause("report")
    assert code(schedule=every(hours=1)).schedules.get("report").next_at == first.next_at
    code(schedule=cron("0 3 * * *", tz="Europe/Zurich"), queue="nightly")
    record = jobs.schedules.get("report")
    assert shape(record) == ("cron 0 3 * * * Europe/Zurich", "code", False, False)
    assert record.paused_at is not None and record.to_json()["options"] == {"queue": "nightly"}
    assert record.next_at is not None and (record.next_at.hour in (1, 2))


def test_a_start_that_declares_nothing_new_waits_for_no_writer(
    code: Callable[..., JobQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    code(schedule=every(hours=1))
    monkeypatch.setattr(Store, "transact", lambda *_: pytest.fail("it writes"))
    code(schedule=every(hours=1))


def test_an_operators_change_stays_until_reset(code: Callable[..., JobQueue]) -> None:
    jobs = code(schedule=every(hours=1))
    call = jobs.registry["report"].options(queue="slow").call()
    jobs.schedules.add("report", call, every(days=1), replace=True)
    changed = ("every 1d", "code", True, False)
    assert shape(jobs.schedules.get("report")) == changed
    code(schedule=every(hours=1))
    code(schedule=every(hours=2))  # The code changes; the row still does not.
    assert shape(jobs.schedules.get("report")) == changed
    assert jobs.schedules.reset("report") and not jobs.schedules.reset("report")
    assert shape(jobs.schedules.get("report")) == ("every 2h", "code", False, False)
    code(schedule=every(hours=3))
    assert shape(jobs.schedules.get("report")) == ("every 3h", "code", False, False)


def test_what_the_code_declares_no_more_is_orphaned_until_it_does(
    code: Callable[..., JobQueue],
) -> None:
    jobs = code(schedule=every(hours=1))
    code()
    gone = jobs.schedules.get("report")
    assert shape(gone) == ("every 1h", "code", False, True)
    code()
    assert jobs.schedules.get("report").orphaned_at == gone.orphaned_at  # Since the first one.
    code(schedule=every(hours=1))
    assert shape(jobs.schedules.get("report")) == ("every 1h", "code", False, False)
    code(name="another")  # An app without that task has no say.
    assert shape(jobs.schedules.get("report")) == ("every 1h", "code", False, False)


def test_an_operators_schedule_with_the_name_of_a_declared_one_is_an_operators_change(
    code: Callable[..., JobQueue],
) -> None:
    jobs = code()
    jobs.schedules.add("report", jobs.registry["report"].call(), every(days=1))
    code(schedule=every(hours=1))
    code()  # It never was the code's.
    assert shape(jobs.schedules.get("report")) == ("every 1d", "operator", True, False)
    jobs.schedules.reset("report")
    assert shape(jobs.schedules.get("report")) == ("every 1h", "code", False, False)


def test_declaring_again_what_is_there_writes_nothing(code: Callable[..., JobQueue]) -> None:
    jobs = code(schedule=every(hours=1))
    ticks = Ticks(jobs.store)
    with jobs.store.read() as connection:
        news = ticks._news(connection, declared(jobs.registry), list(jobs.registry))
    assert news == []


def test_a_schedule_is_added_once_and_changed_only_when_asked_to(jobs: JobQueue) -> None:
    sync = jobs.registry["sync"]
    added = jobs.schedules.add("sync-7", sync.call(7), every(minutes=5))
    assert jobs.schedules.add("sync-7", sync.call(7), every(minutes=5)) == added
    with pytest.raises(InvalidOption, match="there is a schedule 'sync-7' already.*every 5m"):
        jobs.schedules.add("sync-7", sync.call(8), every(minutes=5))
    assert jobs.schedules.get("sync-7") == added
    changed = jobs.schedules.add("sync-7", sync.call(8), every(minutes=5), replace=True)
    assert changed.next_at == added.next_at and changed.to_json()["args"] == [8]
    assert [each.name for each in jobs.schedules] == ["sync-7"]
    assert jobs.schedules.remove("sync-7").name == "sync-7"
    assert list(jobs.schedules) == []


def test_a_run_by_hand_makes_a_job_beside_the_ticks(jobs: JobQueue) -> None:
    sync = jobs.registry["sync"]
    added = jobs.schedules.add("sync-7", sync.options(tags=["a"]).call(7), every(minutes=5))
    job = jobs.schedules.run("sync-7")
    record = job.record()
    assert (record.queue, record.priority, record.tags) == ("mail", 3, ("a",))
    assert job.created and record.scheduled_for is None
    again = jobs.schedules.run("sync-7")
    assert again == job and not again.created
    job.cancel()
    assert jobs.schedules.run("sync-7").created
    assert jobs.schedules.get("sync-7").next_at == added.next_at
    jobs.schedules.add("sync-7", sync.call(7), every(minutes=5), overlap="allow", replace=True)
    assert jobs.schedules.run("sync-7").created and jobs.schedules.run("sync-7").created
    jobs.schedules.add(
        "keyed", sync.options(unique_key="k").call(7), every(minutes=5), overlap="allow"
    )
    holder = jobs.schedules.run("keyed")
    assert holder.created and not jobs.schedules.run("keyed").created


@pytest.mark.parametrize("change", ["replace", "resume", "reset"])
def test_a_clock_that_was_set_back_repeats_no_tick_after_a_change(
    code: Callable[..., JobQueue], change: str
) -> None:
    jobs = code(schedule=every(hours=1))
    call = jobs.registry["report"].call()
    if change == "reset":
        jobs.schedules.add("report", call, every(days=1), replace=True)
    record = jobs.schedules.get("report")
    assert record.next_at is not None
    done = record.next_at + DAY  # A tick of tomorrow is done, and the clock set back since.
    set_columns(jobs, "report", nominal_at=done, next_at=done + DAY)
    if change == "replace":
        jobs.schedules.add("report", call, every(minutes=1), replace=True)
    elif change == "resume":
        jobs.schedules.pause("report")
        jobs.schedules.resume("report")
    else:
        jobs.schedules.reset("report")
    found = jobs.schedules.get("report").next_at
    assert found is not None and found > done


def test_a_ticks_job_is_what_enqueueing_the_call_would_make(jobs: JobQueue) -> None:
    @jobs.task(
        backoff=exponential(3),
        max_attempts=4,
        timeout=9,
        deadline=90,
        tags=["a", "b"],
        headers={"a": "ä"},
    )
    def plain() -> None: ...

    for call in (
        plain.call(),
        plain.options(backoff=fixed(5), priority=-1, unique_key="k").call(),
        jobs.registry["sync"].options(unique_key="k", unique_until="started").call(7),
    ):
        again = call_of(call.task, definition_of(call, every(minutes=5)))
        assert again.to_new_job() == call.to_new_job()


def test_a_preview_also_shows_what_no_worker_has_written_yet(jobs: JobQueue) -> None:
    @jobs.task(schedule=cron("0 3 * * *", tz="Europe/Zurich"))
    def nightly() -> None: ...

    runs = list(jobs.schedules.preview("nightly", DAY * 3))
    assert [run.at.hour for run in runs] == [3, 3, 3]
    assert [run.note for run in runs] == [None] * 3


def test_what_is_wrong_with_a_schedule_is_said_where_it_is_declared(jobs: JobQueue) -> None:
    sync = jobs.registry["sync"]
    wrong: list[tuple[str, Callable[[], object]]] = [
        ("name: 'a b' is not a name", lambda: jobs.schedules.add("a b", sync.call(1), every(days=1))),
        ("delay: its schedule says", lambda: jobs.schedules.add("a", sync.options(delay=5).call(1), every(days=1))),
        ("schedule: '5m': write cron", lambda: jobs.schedules.add("a", sync.call(1), "5m")),
        ("schedule: none given", lambda: jobs.schedules.add("a", sync.call(1), None)),
        ("call: int is not a call", lambda: jobs.schedules.add("a", 5, every(days=1))),
        ("catch_up: 'some' is none of latest, all, none", lambda: jobs.schedules.add("a", sync.call(1), every(days=1), catch_up="some")),
        ("overlap: 'both' is none of skip, allow", lambda: jobs.schedules.add("a", sync.call(1), every(days=1), overlap="both")),
        ("schedule: it belongs to the task", lambda: sync.options(schedule=every(days=1))),
        ("there is no schedule 'a'", lambda: jobs.schedules.pause("a")),
        ("there is no schedule 'a'", lambda: jobs.schedules.run("a")),
        ("there is no schedule 'a'", lambda: jobs.schedules.preview("a")),
        ("within: ", lambda: jobs.schedules.preview("a", -1)),
    ]  # fmt: skip
    for part, attempt in wrong:
        with pytest.raises(InvalidOption) as refused:
            attempt()
        assert part in str(refused.value)
    jobs.schedules.add("mine", sync.call(1), every(days=1))
    with pytest.raises(InvalidOption, match="no code declares the schedule 'mine'"):
        jobs.schedules.reset("mine")
    with pytest.raises(InvalidArguments, match="tenant"):

        @jobs.task(schedule=every(days=1))
        def needs(tenant: int) -> None: ...

    assert "needs" not in jobs.registry
    assert [each.name for each in jobs.schedules] == ["mine"]
    assert list(jobs.list()) == []
