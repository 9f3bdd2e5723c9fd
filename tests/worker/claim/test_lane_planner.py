"""Workers claim from lanes: limits hold in the whole fleet, and nothing waits for a full one."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from jobqueue import Job, JobQueue
from jobqueue.store import paused_search
from jobqueue.store.lanes import Lanes
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.store.schema import LaneKind, Parked, lanes, queues
from jobqueue.worker.claim import lanes as lane_planner
from jobqueue.worker.complete.outcome_writer import OutcomeWriter


class Meter:
    """Counts how many handlers of each key run at once."""

    def __init__(self, queue: JobQueue) -> None:
        self._lock = threading.Lock()
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.go = threading.Event()

        @queue.task(name="work")
        def work(key: str, *, hold: bool = False) -> str:
            with self._lock:
                self.running[key] += 1
                self.most[key] = max(self.most[key], self.running[key])
            if hold:
                assert self.go.wait(30)
            with self._lock:
                self.running[key] -= 1
            return key

        self.task = work


@pytest.fixture
def meter(jobs: JobQueue) -> Meter:
    return Meter(jobs)


@pytest.fixture
def keyed(jobs: JobQueue, meter: Meter) -> Callable[..., list[Job[Any]]]:
    """A function that enqueues jobs of one key."""

    def keyed(key: str, count: int = 1, *, limit: int | None = None, hold: bool = False) -> Any:
        made = jobs.enqueue_many(
            meter.task.options(delay=3600).call(key, hold=hold) for _ in range(count)
        )
        with jobs.store.write() as connection:
            of_these = jobs_table.c.id.in_([job.id for job in made])
            values = {"lane": key, "lane_limit": limit, "state": "available"}
            connection.execute(update(jobs_table).where(of_these).values(values))
        return made

    return keyed


@pytest.fixture
def fleet(jobs: JobQueue) -> Iterator[Callable[..., None]]:
    with ExitStack() as stack:

        def start(count: int, **settings: Any) -> None:
            for number in range(count):
                stack.enter_context(jobs.worker(name=f"w{number}", **settings))

        yield start


def test_a_key_is_held_to_its_limit_in_the_whole_fleet(
    meter: Meter, keyed: Any, fleet: Any
) -> None:
    made = [*keyed("one", 30, limit=1), *keyed("two", 30, limit=2), *keyed("free", 30)]
    fleet(3, concurrency=4)
    assert [job.result(timeout=60) for job in made] == ["one"] * 30 + ["two"] * 30 + ["free"] * 30
    assert meter.most["one"] == 1
    assert meter.most["two"] <= 2


def test_jobs_of_a_full_key_hold_up_no_other_job(
    jobs: JobQueue, meter: Meter, keyed: Any, fleet: Any
) -> None:
    (first,) = keyed("full", limit=1, hold=True)
    waiting = keyed("full", 200, limit=1)
    fleet(1, concurrency=2)
    assert meter.task.enqueue("plain").result(timeout=30) == "plain"
    assert [job.result(timeout=30) for job in keyed("other", 3, limit=1)] == ["other"] * 3
    assert {job.state for job in waiting[:5]} == {"available"}
    meter.go.set()
    assert first.result(timeout=30) == "full"
    assert [job.result(timeout=60) for job in waiting[:20]] == ["full"] * 20


def test_a_queue_is_held_to_its_limit_in_the_whole_fleet(
    jobs: JobQueue, meter: Meter, keyed: Any, fleet: Any
) -> None:
    with jobs.store.write() as connection:
        connection.execute(insert(queues).values(name="default", max_running=2))
    made = [meter.task.enqueue("all") for _ in range(20)] + keyed("all", 20)
    fleet(3, concurrency=4)
    assert [job.result(timeout=60) for job in made] == ["all"] * 40
    assert meter.most["all"] <= 2


def test_a_limit_that_is_taken_back_lets_the_queue_drain(
    jobs: JobQueue, meter: Meter, fleet: Any, wait_until: Any
) -> None:
    with jobs.store.write() as connection:
        connection.execute(insert(queues).values(name="default", max_running=0))
    made = [meter.task.enqueue("all") for _ in range(20)]
    fleet(1, concurrency=4)
    with jobs.store.write() as connection:
        connection.execute(update(queues).values(max_running=None))
    assert [job.result(timeout=60) for job in made] == ["all"] * 20


def test_a_worker_of_other_queues_leaves_a_key_alone(
    jobs: JobQueue, meter: Meter, keyed: Any, fleet: Any
) -> None:
    (mine,) = keyed("a", limit=1)
    with jobs.store.write() as connection:
        there = jobs_table.c.id == mine.id
        connection.execute(update(jobs_table).where(there).values(queue="mail"))
    fleet(1, queues=["default"])
    assert meter.task.enqueue("plain").result(timeout=30) == "plain"
    assert mine.state == "available"
    fleet(1, queues=["mail"])
    assert mine.result(timeout=30) == "a"


KEY = {"concurrency_key": "k", "concurrency_limit": 1}


def claimed_at_once(worker: Any) -> list[int]:
    """What an idle worker claims that hears of jobs, in rounds that follow without a pause."""
    worker.planner.hint_work(announced=True)
    for _ in range(10):
        if worker.parts.claimer.tick() > 0 or worker.inbox():
            break
    ids = [claim.id for claim in worker.inbox()]
    worker.execute()
    worker.complete()
    return ids


@pytest.mark.parametrize(
    ("switches", "options"),
    [
        ({}, KEY),
        ({"max_running": 3}, {}),
        ({"max_running": 3}, KEY),
        ({"rate_count": 50, "rate_period": 1.0, "rate_burst": 50}, {}),
        ({"fair": 1}, {}),
    ],
    ids=str,
)
def test_an_announced_job_that_has_room_is_claimed_by_an_idle_worker_at_once(
    jobs: JobQueue, meter: Meter, stepped: Any, switches: Any, options: Any
) -> None:
    """The first of its lane, and one that comes after the lane was empty."""
    if switches:
        with jobs.store.write() as connection:
            connection.execute(insert(queues).values(name="default", **switches))
    worker = stepped(concurrency=2)
    for _ in range(2):
        assert worker.claim() == []
        job = meter.task.options(**options).enqueue("k")
        assert claimed_at_once(worker) == [job.id]


def test_a_greater_limit_of_a_full_key_is_in_force_at_once(
    jobs: JobQueue, meter: Meter, stepped: Any
) -> None:
    worker, other = stepped(concurrency=2), stepped(concurrency=2)
    first = meter.task.options(**KEY).enqueue("k")
    other.planner.hint_work(announced=True)
    while not other.inbox():
        other.parts.claimer.tick()
    waiting = meter.task.options(**KEY).enqueue("k")
    assert claimed_at_once(worker) == []  # The lane is full.
    second = meter.task.options(**KEY | {"concurrency_limit": 2}).enqueue("k")
    assert claimed_at_once(worker) == [second.id]
    assert (first.state, waiting.state) == ("running", "available")


@pytest.mark.parametrize("options", [{}, KEY], ids=str)
def test_a_job_behind_many_paused_ones_of_its_lane_is_claimed_in_rounds_without_a_pause(
    jobs: JobQueue, meter: Meter, stepped: Any, monkeypatch: pytest.MonkeyPatch, options: Any
) -> None:
    for name in ("ROWS", "ROWS_MIN"):
        monkeypatch.setattr(paused_search, name, 3)
    with jobs.store.write() as connection:
        connection.execute(insert(queues).values(name="default", max_running=3))
    worker = stepped(concurrency=2)
    jobs.pause(tag="held", force=True)
    held = [meter.task.options(tags=["held"], **options).call("k")] * 10
    free = meter.task.options(**options).call("k")
    jobs.enqueue_many([*held, free, *held, free])
    assert [len(claimed_at_once(worker)) for _ in range(2)] == [1, 1]
    next_one = meter.task.options(**options).enqueue("k")
    assert claimed_at_once(worker) == [next_one.id]


def test_a_job_of_a_resumed_task_is_claimed_at_once(
    jobs: JobQueue, meter: Meter, stepped: Any
) -> None:
    worker = stepped(concurrency=2)
    jobs.pause(task="work")
    made = [meter.task.options(**options).enqueue("k").id for options in ({}, KEY)]
    assert claimed_at_once(worker) == []
    jobs.resume(task="work")
    assert sorted(claimed_at_once(worker) + claimed_at_once(worker)) == made


def test_a_worker_rests_once_nothing_of_a_limited_queue_is_paused_any_more(
    jobs: JobQueue, meter: Meter, stepped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, most in {"ROWS": 3, "ROWS_MIN": 3, "INTERVAL": 0.0}.items():
        monkeypatch.setattr(paused_search, name, most)
    with jobs.store.write() as connection:
        connection.execute(insert(queues).values(name="default", max_running=9))
    worker = stepped(concurrency=9)
    jobs.pause(task="work")
    made = [job.id for job in jobs.enqueue_many([meter.task.call("k")] * 9)]
    assert claimed_at_once(worker) == []
    jobs.resume(task="work")
    assert [id_ for _ in range(4) for id_ in claimed_at_once(worker)] == made
    assert worker.planner.lanes.due_in() > 0


@pytest.mark.parametrize(("switches", "options"), [({}, KEY), ({"max_running": 1}, {})], ids=str)
def test_a_full_lane_goes_on_at_once_after_the_end_of_its_job(
    jobs: JobQueue, meter: Meter, stepped: Any, monkeypatch: Any, switches: Any, options: Any
) -> None:
    """Neither a sweep nor a look for new jobs has to find it."""
    for name in ("SWEEP_INTERVAL", "LOOK_INTERVAL"):
        monkeypatch.setattr(lane_planner, name, 600.0)
    if switches:
        with jobs.store.write() as connection:
            connection.execute(insert(queues).values(name="default", **switches))
    made = [meter.task.options(**options).enqueue("k").id for _ in range(3)]
    worker, claimed = stepped(concurrency=2), []
    worker.planner.hint_work(announced=True)
    for _ in made:
        for _ in range(5):  # The last ones find the lane full.
            worker.parts.claimer.round()
        claimed.append([claim.id for claim in worker.inbox()])
        worker.execute()
        worker.complete()
    assert claimed == [[id_] for id_ in made]


def test_a_key_goes_on_after_a_claim_that_failed(meter: Meter, stepped: Any) -> None:
    """Its transaction was to bring the lane back in which a job has ended."""
    task = meter.task.options(concurrency_key="k", concurrency_limit=1)
    jobs = [task.enqueue("k"), task.enqueue("k")]
    worker = stepped(concurrency=2)

    def claim() -> list[int]:
        worker.planner.hint_work(announced=True)
        for _ in range(5):
            worker.parts.claimer.round()
        return [claim.id for claim in worker.inbox()]

    assert claim() == [jobs[0].id]
    worker.execute()
    worker.complete()
    given = worker.cursors.claim

    def fail(*_: Any, **__: Any) -> Any:
        worker.cursors.claim = given
        raise OSError("no database")

    worker.cursors.claim = fail
    assert claim() == [jobs[1].id]


def test_a_worker_that_stops_brings_back_the_lane_of_its_last_job(
    jobs: JobQueue, meter: Meter, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledge = OutcomeWriter.acknowledge

    def acknowledge_slowly(writer: OutcomeWriter) -> None:
        acknowledge(writer)
        worker._exit_conditions.ended.wait(10)
        threading.Event().wait(0.1)  # The stop goes on meanwhile, if it waits for outcomes alone.

    monkeypatch.setattr(OutcomeWriter, "acknowledge", acknowledge_slowly)

    def is_passed_over() -> bool:
        with jobs.store.read() as connection:
            parked = select(lanes.c.parked).where(lanes.c.name == "k")
            return connection.execute(parked).scalar() == Parked.FULL

    one = meter.task.options(concurrency_key="k", concurrency_limit=1)
    worker = jobs.worker(concurrency=2)
    worker.start()
    one.enqueue("k", hold=True)
    one.enqueue("k")
    wait_until(lambda: meter.running["k"] and is_passed_over())
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    wait_until(lambda: worker._parts.planner.closed)
    meter.go.set()
    stopping.join()
    assert not is_passed_over()


def test_a_drain_does_not_wait_for_what_a_limit_of_0_holds_back(
    jobs: JobQueue, meter: Meter, lines: Any
) -> None:
    with jobs.store.write() as connection:
        connection.execute(insert(queues).values(name="mail", max_running=0))
    held = [
        meter.task.options(queue="mail").enqueue("all"),
        meter.task.options(concurrency_key="k", concurrency_limit=0).enqueue("all"),
    ]
    free = meter.task.enqueue("all")
    with jobs.worker(drain=True) as worker:
        worker.wait(30)
    assert [job.state for job in (*held, free)] == ["available", "available", "succeeded"]
    assert len(lines(logging.WARNING, "not waited for: 2 jobs with a limit of 0")) == 1


def parked(jobs: JobQueue) -> Parked:
    with jobs.store.read() as connection:
        return Parked(
            connection.execute(select(lanes.c.parked).where(lanes.c.name == "k")).scalar_one()
        )


def test_a_lane_comes_back_after_a_busy_worker_failed_to_bring_it_back(
    jobs: JobQueue, meter: Meter, stepped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = [meter.task.options(**KEY).enqueue("k") for _ in range(2)]
    worker = stepped(concurrency=1)
    assert claimed_at_once(worker) == [first.id]
    monkeypatch.setattr(worker.planner, "wanted", lambda: 0)
    unpark = Lanes.unpark

    def fail(*_: Any) -> Any:
        monkeypatch.setattr(Lanes, "unpark", unpark)
        raise OSError("no database")

    monkeypatch.setattr(Lanes, "unpark", fail)
    found = []
    for _ in range(2):
        worker.parts.claimer.round()
        found.append(parked(jobs))
    assert found == [Parked.FULL, Parked.NO]


@pytest.mark.databases("postgres")  # SQLite locks no table alone.
@pytest.mark.parametrize("step", ["before the look", "before the claim", "while it is busy"])
def test_a_lock_on_the_table_of_lanes_holds_up_no_free_job(
    jobs: JobQueue, meter: Meter, stepped: Any, lines: Any, monkeypatch: Any, step: str
) -> None:
    """As VACUUM FULL and ALTER TABLE take it."""
    worker = stepped(concurrency=4)
    first = meter.task.options(**KEY).enqueue("k")
    assert claimed_at_once(worker) == [first.id]
    of_key = meter.task.options(**KEY).enqueue("k")
    with jobs.store.write() as other:

        def lock() -> None:
            other.execute(text("LOCK TABLE jobqueue_lanes IN ACCESS EXCLUSIVE MODE"))

        if step == "before the claim":
            refresh = worker.planner.refresh

            def refresh_first() -> bool:
                found: bool = refresh()
                lock()
                return found

            monkeypatch.setattr(worker.planner, "refresh", refresh_first)
        else:
            lock()
        if step == "while it is busy":
            worker.planner.lanes.recheck([(LaneKind.KEY, "k")])
            with monkeypatch.context() as busy:
                busy.setattr(worker.planner, "wanted", lambda: 0)
                worker.parts.claimer.tick()
        for _ in range(3):
            free = meter.task.enqueue("free")
            assert claimed_at_once(worker) == [free.id]
    monkeypatch.undo()
    worker.planner.lanes._skipped_until = 0.0
    assert claimed_at_once(worker) == [of_key.id]
    assert len(lines(logging.WARNING, "other jobs wait too, unless it is jobqueue_lanes")) == 1


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
@pytest.mark.parametrize("is_full", [True, False])
def test_a_lane_that_another_worker_locks_and_parks_comes_back_after_a_claim_that_failed(
    jobs: JobQueue, meter: Meter, stepped: Any, wait_until: Any, is_full: bool
) -> None:
    worker = stepped(concurrency=1)
    for _ in range(2):
        meter.task.options(**KEY).enqueue("k")
    worker.claim()
    found = worker.planner.lanes
    if not is_full:
        with jobs.store.write() as connection:
            connection.execute(update(lanes).values(parked=Parked.NO))
    with jobs.store.write() as connection:
        connection.execute(update(lanes).values(parked=Parked.FULL))
        found.recheck([] if is_full else [(LaneKind.KEY, "k")])
        with jobs.store.write() as own:
            found.unpark_ended(own)

    assert parked(jobs) is Parked.FULL
    assert found.due_in() < 1
    wait_until(found.has_ended)
    with jobs.store.write() as own:
        found.unpark_ended(own)
    assert parked(jobs) is Parked.NO
    assert not found.has_ended()


def test_one_slow_sweep_does_not_put_off_the_next_for_long(
    meter: Meter, stepped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have waited for a lock, or for a processor."""
    present = 1_000.0
    monkeypatch.setattr(lane_planner.time, "monotonic", lambda: present)
    asked: list[float] = []

    def sweep(_: Lanes, every: float) -> bool:
        nonlocal present
        asked.append(every)
        present += 60.0
        return True

    monkeypatch.setattr(Lanes, "sweep", sweep)
    meter.task.options(**KEY).enqueue("k")
    found = stepped(concurrency=1).planner.lanes
    with found._store.read() as connection:
        found.look(connection, announced=True)
    for _ in range(2):
        found.refresh()
        present += lane_planner.SWEEP_INTERVAL_MAX
    assert asked == [lane_planner.SWEEP_INTERVAL, lane_planner.SWEEP_INTERVAL_MAX]
