"""The switches of queues: what the code declares, what operators change, and who wins."""

import re
from typing import Any

import pytest
from sqlalchemy import select

from jobqueue import JobQueue, State
from jobqueue.errors import ConfigurationError, InvalidOption
from jobqueue.queue_switches import QueueSwitches, Rate
from jobqueue.store.audit import Audit
from jobqueue.store.queue_control import QueueControl
from jobqueue.store.schema import LaneKind, Parked, lanes, queues
from jobqueue.store.stats import Monitor

NOTHING = (None, None, None, None, None)


@pytest.fixture
def jobs(url: str) -> Any:
    with JobQueue(url) as queue:
        queue.store.require_schema()
        yield queue


@pytest.fixture
def control(jobs: JobQueue) -> QueueControl:
    return QueueControl(jobs.store)


def switches(jobs: JobQueue, queue: str = "mail") -> tuple[Any, ...]:
    columns = [queues.c[name] for name in QueueSwitches._fields]
    with jobs.store.read() as connection:
        return tuple(connection.execute(select(*columns).where(queues.c.name == queue)).one())


def starts(jobs: JobQueue, **declared: Any) -> None:
    """A worker of a program that declares this of `mail` starts, which is when it writes that."""
    url = jobs.store.url.render_as_string(hide_password=False)
    with JobQueue(url) as program:
        program.queue("mail", **declared)
        with program.worker():
            pass


def test_what_the_code_declares_is_in_force_when_a_worker_starts(jobs: JobQueue) -> None:
    jobs.queue("mail", limit=4, rate="100/minute", burst=10, fair=True)
    jobs.queue("plain", max_pending=5)
    with jobs.worker():
        pass
    assert switches(jobs) == (4, 100, 60.0, 10, 1)
    assert switches(jobs, "plain") == NOTHING
    (row,) = [row for row in Monitor(jobs.store).bounded_queues() if row["queue"] == "mail"]
    assert (row["max_running"], row["rate_count"], row["rate_period"]) == (4, 100, 60.0)
    assert (row["rate_burst"], row["fair"], row["max_pending"]) == (10, True, None)


def test_an_operators_change_stays_until_the_code_declares_something_else(
    jobs: JobQueue, control: QueueControl
) -> None:
    starts(jobs, limit=4, rate="100/minute")
    control.limit("mail", 1)
    control.rate("mail", None)
    starts(jobs, limit=4, rate="100/minute")
    assert switches(jobs) == (1, None, None, None, None)
    starts(jobs, limit=4, rate="5/30s", burst=2)  # The limit is declared as before.
    assert switches(jobs) == (1, 5, 30.0, 2, None)
    starts(jobs, limit=8, rate="5/30s", burst=2)
    assert switches(jobs) == (8, 5, 30.0, 2, None)


def test_what_the_code_declares_no_more_is_taken_back(
    jobs: JobQueue, control: QueueControl
) -> None:
    starts(jobs, limit=4)
    starts(jobs, max_pending=5)
    assert switches(jobs) == NOTHING
    control.limit("mail", 2)  # Of a queue of which the code says nothing.
    starts(jobs)
    assert switches(jobs) == (2, None, None, None, None)


def test_a_change_brings_the_lane_of_the_queue_back_at_once(
    jobs: JobQueue, control: QueueControl
) -> None:
    values = {"kind": LaneKind.QUEUE.value, "name": "mail", "queue": "mail"}
    for change in (
        lambda: control.limit("mail", 3),
        lambda: control.rate("mail", Rate(1, 60.0)),
        lambda: control.fair("mail", fair=True),
    ):
        with jobs.store.write() as connection:
            connection.execute(lanes.delete())
            connection.execute(
                lanes.insert().values(**values, parked=Parked.FULL.value, parked_until=2**40)
            )
        change()
        with jobs.store.read() as connection:
            assert connection.execute(select(lanes.c.parked)).scalar_one() == Parked.NO


def test_a_queue_that_is_declared_twice_is_refused_with_both_places_unless_alike(
    jobs: JobQueue,
) -> None:
    jobs.queue("mail", limit=4, rate="100/minute", max_pending=9)
    jobs.queue("mail", limit=4, rate="100/60", burst=None, max_pending=9, when_full="wait")
    for changed, first, second in (
        ({"limit": 8}, "limit=4", "limit=8"),
        ({"limit": None}, "limit=4", "limit=None"),
        ({"burst": 2}, "rate='100/minute'", "rate='100/minute, burst 2'"),
        ({"fair": True}, "fair=False", "fair=True"),
        ({"max_pending": None}, "max_pending=9", "max_pending=None"),
        ({"when_full": "reject"}, "when_full='wait'", "when_full='reject'"),
        ({"timeout": 2, "limit": 0}, "limit=4, timeout=None", "limit=0, timeout=2.0"),
    ):
        given = {"limit": 4, "rate": "100/minute", "max_pending": 9} | changed
        with pytest.raises(ConfigurationError) as refused:
            jobs.queue("mail", **given)
        assert re.fullmatch(
            rf"two declarations of queue 'mail' differ: {re.escape(first)} \({__file__}:\d+\), "
            rf"{re.escape(second)} \({__file__}:\d+\); declare it once",
            str(refused.value),
        )
        assert (refused.value.field, refused.value.value) == ("name", "mail")
    with jobs.worker():
        pass
    assert switches(jobs) == (4, 100, 60.0, None, None)
    jobs.queue("other", limit=8)


def test_a_switch_that_is_so_already_is_no_change_and_no_row_of_the_audit(jobs: JobQueue) -> None:
    control = QueueControl(jobs.store, "ada@host")
    changes = (
        lambda: control.limit("mail", 4),
        lambda: control.rate("mail", Rate.of("10/5m", 3)),
        lambda: control.fair("mail", fair=True),
        lambda: control.limit("mail", None),
        lambda: control.rate("mail", None),
        lambda: control.fair("mail", fair=False),
    )
    assert [change() for change in changes[3:]] == [False] * 3
    assert Monitor(jobs.store).bounded_queues() == []  # It made no queue either.
    assert [(change(), change()) for change in changes] == [(True, False)] * 6
    assert [change() for change in changes[3:]] == [False] * 3
    assert [row["verb"] for row in Audit(jobs.store).find(None)] == ["fair", "rate", "limit"] * 2


def test_a_purge_deletes_what_waits_and_nothing_else(jobs: JobQueue, control: QueueControl) -> None:
    @jobs.task
    def work(n: int) -> None: ...

    mail = work.options(queue="mail")
    done = mail.enqueue(0)
    with jobs.worker():
        done.result(timeout=30)
    waiting = [
        mail.enqueue(1),
        mail.options(delay=60).enqueue(2),
        mail.options(concurrency_key="k").enqueue(3),
    ]
    running, other = mail.enqueue(4), work.enqueue(5)
    with jobs.store.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE jobqueue_jobs SET state = 'running', worker_id = 7 WHERE id = {running.id}"
        )
    assert control.purge("mail") == len(waiting)
    left = {record.id: record.state for record in jobs.list()}
    assert left == {
        done.id: State.SUCCEEDED,
        running.id: State.RUNNING,
        other.id: State.AVAILABLE,
    }


@pytest.mark.parametrize(
    ("given", "rate", "text"),
    [
        ("100/minute", (100, 60.0), "100/minute"),
        ("1/second", (1, 1.0), "1/second"),
        ("7/hour", (7, 3600.0), "7/hour"),
        ("2/day", (2, 86_400.0), "2/day"),
        ("5/30s", (5, 30.0), "5/30s"),
        ("5/90", (5, 90.0), "5/90s"),
        ("10/1m", (10, 60.0), "10/minute"),
        ("1/500ms", (1, 0.5), "1/0.5s"),
        ("3/h", (3, 3600.0), "3/hour"),
        ("10/5m", (10, 300.0), "10/5m"),
        ("10/120", (10, 120.0), "10/2m"),
        ("8/6h", (8, 21_600.0), "8/6h"),
        ("8/48h", (8, 172_800.0), "8/2d"),
        ("8/300.5s", (8, 300.5), "8/300.5s"),
    ],
)
def test_a_rate_is_a_number_per_unit_or_per_duration(
    given: str, rate: tuple[Any, ...], text: str
) -> None:
    assert Rate.of(given) == (*rate, None)
    assert (Rate.of(given).to_text(), Rate.of(text)) == (text, Rate.of(given))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"limit": -1}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": 1_000_001}, "limit"),
        *[
            ({"rate": rate}, "rate")
            for rate in ("x/y", "100", 100, "0/minute", "-1/minute", "1.5/s", "1/fortnight",
                         "1/0s", "1/", "/minute", "١/minute", "9" * 30 + "/s", "1/minute/s")
        ],
        ({"burst": 5}, "burst"),
        ({"rate": "1/s", "burst": 0}, "burst"),
        ({"fair": 1}, "fair"),
        ({"max_pending": 0}, "max_pending"),
    ],
)  # fmt: skip
def test_wrong_switches_are_refused_in_one_line(
    jobs: JobQueue, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidOption) as refused:
        jobs.queue("mail", **options)
    assert refused.value.field == field
    assert "\n" not in str(refused.value)
    assert "1fortnight" not in str(refused.value)  # What nobody has written.
    assert "mail" not in jobs.registry.queues
