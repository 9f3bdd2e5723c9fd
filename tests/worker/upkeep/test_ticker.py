"""Ticks of schedules, in workers without threads: who makes the job, for which instants, and what waits."""

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import OperationalError

from jobqueue import EnqueueRefused, JobQueue, State, cron, current_job, every
from jobqueue.records import JobRecord
from jobqueue.schedules.definition import ScheduleRecord
from jobqueue.store.schedule_ticks import Ticks
from jobqueue.store.schema import schedules
from jobqueue.worker.upkeep.ticker import LOCKED_REST, LOOK_INTERVAL, Ticker
from tests.worker.conftest import Stepped

HOUR = timedelta(hours=1)
HALF_AN_HOUR_AGO = cron(f"{(datetime.now().minute + 30) % 60} * * * *")


def declare(queue: JobQueue, /, **options: Any) -> None:
    """Declare the task `report`, every hour unless said otherwise, and write that as a worker does."""

    @queue.task(name="report", **{"schedule": every(hours=1)} | options)
    def report() -> str:
        at = current_job().scheduled_for
        return "by hand" if at is None else at.isoformat()


def write(queue: JobQueue) -> None:
    """What a worker's start does."""
    queue.worker()._declared(queue.store)


def schedule(queue: JobQueue, name: str = "report") -> ScheduleRecord:
    return queue.schedules.get(name)


def miss(queue: JobQueue, ticks: int, name: str = "report", period: timedelta = HOUR) -> datetime:
    """Move a schedule back so that so many ticks are due, and return the first of them."""
    before = schedule(queue, name).next_at
    assert before is not None
    first = before - ticks * period
    with queue.store.write() as connection:
        connection.execute(update(schedules).where(schedules.c.name == name).values(next_at=first))
    return first


def tick(worker: Any) -> float:
    return worker.service(Ticker).tick()


def made(queue: JobQueue) -> list[JobRecord]:
    return sorted(queue.list(limit=None), key=lambda job: job.id)


def test_a_tick_makes_one_job_for_its_instant(jobs: JobQueue, stepped: Stepped) -> None:
    declare(jobs, queue="nightly", priority=-2, tags=["own"])
    write(jobs)
    due = miss(jobs, 1)
    workers = [stepped(), stepped()]
    for worker in workers * 2:
        tick(worker)
    (job,) = made(jobs)
    assert (job.task, job.queue, job.priority, job.tags) == ("report", "nightly", -2, ("own",))
    assert job.scheduled_for == due and job.state is State.AVAILABLE
    record = schedule(jobs)
    assert (record.last_job_id, record.nominal_at) == (job.id, due)
    assert record.next_at == due + HOUR > due
    workers[0].step()
    assert jobs.get(job.id).result(timeout=0) == due.isoformat()


@pytest.mark.parametrize(
    ("options", "missed"),
    [
        ({}, [-1]),
        ({"catch_up": "latest"}, [-1]),
        ({"catch_up": "all"}, [0, 1, 2, 3, 4]),
        ({"catch_up": "all", "overlap": "skip"}, [0]),
        ({"catch_up": "none", "schedule": HALF_AN_HOUR_AGO}, []),
        (
            {"schedule": cron("0 * * * *", tz="America/St_Johns"), "catch_up": "all"},
            [0, 1, 2, 3, 4],
        ),
    ],
)
def test_missed_ticks_are_caught_up_as_wanted(
    jobs: JobQueue, stepped: Stepped, options: dict[str, Any], missed: list[int]
) -> None:
    declare(jobs, **options)
    write(jobs)
    first = miss(jobs, 5)
    tick(stepped())
    instants = [first + n * HOUR for n in range(5)]
    assert [job.scheduled_for for job in made(jobs)] == [instants[n] for n in missed]
    assert schedule(jobs).nominal_at == instants[-1]
    assert schedule(jobs).next_at == first + 5 * HOUR


def test_a_tick_that_is_hardly_late_is_not_a_missed_one(jobs: JobQueue, stepped: Stepped) -> None:
    declare(jobs, schedule=every(seconds=1), catch_up="none")
    write(jobs)
    miss(jobs, 20, period=timedelta(seconds=1))
    tick(stepped())
    assert len(made(jobs)) == 1


def test_hundreds_of_missed_ticks_are_made_in_batches(jobs: JobQueue, stepped: Stepped) -> None:
    declare(jobs, catch_up="all")
    write(jobs)
    first = miss(jobs, 250)
    tick(stepped())
    instants = [job.scheduled_for for job in made(jobs)]
    assert instants == [first + n * HOUR for n in range(250)]


def test_with_overlap_skip_a_tick_waits_for_no_job_but_makes_none_beside_it(
    jobs: JobQueue, stepped: Stepped
) -> None:
    declare(jobs, schedule=every(seconds=1))
    write(jobs)
    worker = stepped()
    for _ in range(3):
        miss(jobs, 2, period=timedelta(seconds=1))
        tick(worker)
    (job,) = made(jobs)
    assert schedule(jobs).nominal_at >= job.scheduled_for
    worker.step()
    miss(jobs, 2, period=timedelta(seconds=1))
    tick(worker)
    assert len(made(jobs)) == 2


def test_with_overlap_allow_each_tick_makes_its_job(jobs: JobQueue, stepped: Stepped) -> None:
    declare(jobs, overlap="allow")
    write(jobs)
    worker = stepped()
    for _ in range(2):
        miss(jobs, 1)
        tick(worker)
        with jobs.store.write() as connection:  # The next hour has come.
            connection.execute(update(schedules).values(nominal_at=None))
    assert len(made(jobs)) == 2


def test_a_paused_schedule_makes_no_job_and_none_for_the_pause_when_it_resumes(
    jobs: JobQueue, stepped: Stepped
) -> None:
    declare(jobs, catch_up="all")
    write(jobs)
    assert jobs.schedules.pause("report", by="ada") and not jobs.schedules.pause("report")
    assert schedule(jobs).paused_by == "ada"
    miss(jobs, 3)
    jobs.schedules.add("other", jobs.registry["report"].call(), every(hours=1))
    miss(jobs, 1, "other")  # The ticker is at work, but not for the paused one.
    worker = stepped()
    tick(worker)
    assert [job.id for job in made(jobs)] == [jobs.schedules.remove("other").last_job_id]
    jobs.delete(*(job.id for job in made(jobs)))
    assert jobs.schedules.resume("report") and not jobs.schedules.resume("report")
    tick(worker)
    assert made(jobs) == []
    assert schedule(jobs).paused_by is None


def test_a_worker_leaves_ticks_of_tasks_that_it_does_not_know_to_others(
    jobs: JobQueue, stepped: Stepped, url: str, lines: Callable[..., list[str]]
) -> None:
    declare(jobs)
    write(jobs)
    miss(jobs, 1)
    with JobQueue(url) as other:

        @other.task(schedule=every(hours=1))
        def own() -> None: ...

        write(other)
        jobs.schedules.add("added", jobs.registry["report"].call(), every(hours=1))
        miss(jobs, 1, "added")
        stranger = stepped(other)
        assert tick(stranger) > 0 and made(jobs) == []
        assert lines(logging.WARNING) == []
        jobs.schedules.remove("added")
        miss(jobs, 1, "own")  # An overdue tick of others does not hide it.
        tick(stranger)
        assert [job.task for job in made(jobs)] == ["own"]
        assert schedule(jobs).orphaned and not jobs.schedules.get("own").orphaned
    tick(stepped())
    assert [job.task for job in made(jobs)] == ["own", "report"]
    assert not schedule(jobs).orphaned


def test_a_worker_does_no_tick_that_its_own_code_declares_no_more(
    jobs: JobQueue, stepped: Stepped, url: str
) -> None:
    declare(jobs)
    write(jobs)
    miss(jobs, 1)
    with JobQueue(url) as newer:
        declare(newer, schedule=None)
        assert tick(stepped(newer)) > 0 and made(jobs) == []
    tick(stepped())  # The older code is still there.
    assert len(made(jobs)) == 1


def test_the_jobs_of_schedules_pass_the_hooks_at_the_enqueue(
    jobs: JobQueue, stepped: Stepped, lines: Callable[..., list[str]]
) -> None:
    declare(jobs, headers={"own": "1"})
    write(jobs)
    refusing: list[str] = []

    def hook(call: Any, send: Any) -> Any:
        if refusing:
            raise EnqueueRefused("not today")
        return send(call.with_headers({"trace": call.task.name}))

    jobs.use(enqueue=hook)

    miss(jobs, 1)
    worker = stepped()
    tick(worker)
    (job,) = made(jobs)
    headers = {"own": "1", "trace": "report"}
    assert json.loads(job.headers) == headers and job.scheduled_for is not None
    worker.step()
    assert json.loads(jobs.schedules.run("report").record().headers) == headers
    refusing.append("all")
    jobs.cancel(made(jobs)[-1].id)
    miss(jobs, 1)
    due = schedule(jobs).next_at
    tick(worker)
    assert len(made(jobs)) == 2 and schedule(jobs).nominal_at == due  # It does not come again.
    (line,) = lines(logging.WARNING)
    assert line == "schedule report: a hook refused its job: not today"
    with pytest.raises(EnqueueRefused):
        jobs.schedules.run("report")


def test_a_full_queue_makes_a_tick_wait_and_holds_up_no_other(
    jobs: JobQueue, stepped: Stepped, lines: Callable[..., list[str]]
) -> None:
    jobs.queue("small", max_pending=2, when_full="reject")
    declare(jobs, queue="small", catch_up="all")

    @jobs.task(schedule=every(hours=1))
    def other() -> None: ...

    write(jobs)
    first = miss(jobs, 3)
    miss(jobs, 1, "other")
    worker = stepped()
    for _ in range(2):
        assert tick(worker) == LOOK_INTERVAL  # Not sooner: it cannot be done at once.
    assert sorted(job.task for job in made(jobs)) == ["other", "report", "report"]
    (line,) = lines(logging.WARNING, "its tick waits")
    assert "schedule report: its tick waits: QueueFull: queue 'small' is full" in line
    worker.step()
    tick(worker)
    instants = [job.scheduled_for for job in made(jobs) if job.task == "report"]
    assert instants == [first + n * HOUR for n in range(3)]


@pytest.mark.parametrize(
    "columns",
    [
        {"kind": "cron", "expression": "0 0 * *", "tz": None},
        {"kind": "cron", "expression": "0 0 * * *", "tz": "Mars/Phobos"},
        {"kind": "every", "expression": "soon", "tz": None},
        {"options": '{"colour": "red"}'},
        {"options": "["},
        {"options": "5"},
        {"options": '{"backoff": 5}'},
        {"args": "zzz"},
    ],
)
def test_a_row_that_nobody_can_read_holds_up_no_other(
    jobs: JobQueue,
    stepped: Stepped,
    lines: Callable[..., list[str]],
    columns: dict[str, Any],
) -> None:
    declare(jobs)
    write(jobs)
    miss(jobs, 1)
    row = {"name": "broken", "task": "report", "kind": "every", "expression": "60"}
    row |= {"catch_up": "latest", "overlap": "skip", "source": "operator"}
    with jobs.store.write() as connection:
        connection.execute(
            insert(schedules).values(row | columns | {"next_at": datetime(2026, 1, 1, tzinfo=UTC)})
        )
    tick(stepped())
    assert [job.task for job in made(jobs)] == ["report"]
    assert len(lines(logging.WARNING, "schedule broken: its tick waits")) == 1
    assert [each.to_json()["name"] for each in jobs.schedules] == ["broken", "report"]


def test_a_fleet_without_schedules_has_no_transaction_for_them(
    jobs: JobQueue, stepped: Stepped, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = stepped()
    ticker = worker.service(Ticker)
    asked: list[str] = []
    for name in ("due_in", "tick"):
        monkeypatch.setattr(ticker._ticks, name, lambda *_, **__: asked.append("asked"))
    for _ in range(5):
        assert ticker.tick() >= 1
        clock.pass_(1)
    assert asked == []


def test_the_ticker_sleeps_until_the_next_tick(
    jobs: JobQueue, stepped: Stepped, clock: Any
) -> None:
    declare(jobs, schedule=every(seconds=1))
    write(jobs)
    worker = stepped()
    rest = tick(worker)
    assert 0 <= rest <= 1
    miss(jobs, 2, period=timedelta(seconds=1))
    clock.pass_(rest)
    tick(worker)
    assert len(made(jobs)) == 1


def test_five_workers_make_one_job_for_each_of_many_ticks(jobs: JobQueue, stepped: Stepped) -> None:
    declare(jobs, catch_up="all")
    for number in range(4):

        @jobs.task(name=f"task-{number}", schedule=every(hours=1), catch_up="all")
        def task() -> None: ...

    write(jobs)
    names = ["report", *(f"task-{number}" for number in range(4))]
    firsts = {name: miss(jobs, 12, name) for name in names}
    tickers = [stepped().service(Ticker) for _ in range(5)]
    for ticker in tickers:  # Small batches, so that they meet.
        plain = ticker._ticks.tick
        ticker._ticks.tick = lambda *known, plain=plain, most, **more: plain(*known, most=2, **more)
    barrier = threading.Barrier(5)
    failures: list[BaseException] = []

    def work(ticker: Ticker) -> None:
        try:
            barrier.wait()
            while ticker._ticks.due_in([*names], names) <= 0:
                ticker._do_ticks()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(ticker,)) for ticker in tickers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = sorted((job.task, job.scheduled_for) for job in made(jobs))
    assert found == [(name, firsts[name] + n * HOUR) for name in names for n in range(12)]


@pytest.mark.databases("postgres")  # On SQLite, who writes holds the database.
def test_a_tick_that_another_worker_is_at_holds_up_no_other(
    jobs: JobQueue, stepped: Stepped
) -> None:
    declare(jobs)

    @jobs.task(schedule=every(hours=1))
    def other() -> None: ...

    write(jobs)
    miss(jobs, 2)
    miss(jobs, 1, "other")
    ticker = stepped().service(Ticker)
    with jobs.store.write() as connection:
        locked = select(schedules).where(schedules.c.name == "report").with_for_update()
        connection.execute(locked)
        assert ticker._do_ticks() == LOCKED_REST
        assert [job.task for job in made(jobs)] == ["other"]
    ticker._do_ticks()
    assert [job.task for job in made(jobs)] == ["other", "report"]


def test_of_the_ticks_that_are_due_the_one_that_waits_longest_is_done_first(
    jobs: JobQueue, stepped: Stepped
) -> None:
    declare(jobs)

    @jobs.task(schedule=every(hours=1))
    def waits() -> None: ...

    write(jobs)
    miss(jobs, 1)
    miss(jobs, 2, "waits")
    stepped().service(Ticker)._do_ticks()
    assert [job.task for job in made(jobs)] == ["waits", "report"]


def test_an_error_of_the_database_within_a_tick_is_none_of_its_schedule(jobs: JobQueue) -> None:
    """Then the other schedules would be tried on a connection that is gone, and its own would wait."""
    declare(jobs)
    write(jobs)
    miss(jobs, 1)

    def make(_: ScheduleRecord) -> Any:
        raise OperationalError("INSERT", {}, Exception("gone"))

    with pytest.raises(OperationalError):
        Ticks(jobs.store).tick(["report"], ["report"], make)


def test_a_worker_makes_the_jobs_of_its_schedules_and_runs_them(
    jobs: JobQueue, wait_until: Callable[..., Any]
) -> None:
    declare(jobs, schedule=every(seconds=1))
    with jobs.worker(poll=3600):  # What is claimed is announced.
        wait_until(lambda: any(job.state is State.SUCCEEDED for job in made(jobs)))
    job = made(jobs)[0]
    assert json.loads(job.result) == job.scheduled_for.isoformat()
    assert job.created_at - job.scheduled_for < timedelta(seconds=3)
