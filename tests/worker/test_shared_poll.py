"""What a worker looks at every second: in one transaction, and a bounded part of the fleet, so that everybody is watched."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from jobqueue import JobQueue, State
from jobqueue.store.clock import after
from jobqueue.events import EventStream
from jobqueue.records import Registration
from jobqueue.store.claims import WorkerRef
from jobqueue.store.leases import HOST_PEERS, PEERS, Leases
from jobqueue.worker import process_identity
from jobqueue.worker.event_dispatcher import EventDispatcher
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.upkeep.scheduler import Scheduler
from jobqueue.worker.shared_poll import SharedPoll
from jobqueue.worker.upkeep.reaper import Reaper
from tests.worker.conftest import Stepped

LEASE = 8.0
BEAT = {"running": 0, "processed": 0, "errored": 0, "concurrency": 1}


# One transaction


@contextmanager
def transactions(worker: Any) -> Iterator[list[int]]:
    """Those that a worker's store begins."""
    engine: Engine = worker.store.engine
    begun: list[int] = []

    def count(_: object) -> None:
        begun.append(1)

    event.listen(engine, "begin", count)
    yield begun
    event.remove(engine, "begin", count)


def idle(worker: Any, clock: Any) -> None:
    """What the threads of an idle worker do in a second."""
    clock.pass_(1)
    worker.claim()
    worker.service(Reaper).tick()
    worker.service(Scheduler).tick()


def test_an_idle_worker_asks_everything_in_the_transaction_of_its_sweep(
    stepped: Stepped, clock: Any
) -> None:
    worker, _other = stepped(), stepped()
    idle(worker, clock)
    with transactions(worker) as begun:
        for second in range(1, 6):
            idle(worker, clock)
            assert len(begun) == second


def test_where_nobody_sweeps_the_keepers_share_a_look(stepped: Stepped, clock: Any) -> None:
    worker = stepped()
    worker.service(Scheduler).tick()  # The first one looks whether the tables are there.
    with transactions(worker) as begun:
        for second in range(1, 6):
            clock.pass_(1)
            worker.service(Scheduler).tick()
            worker.service(Reaper).tick()
            assert len(begun) == second


def test_a_look_wakes_the_other_keepers_and_not_who_took_it(stepped: Stepped, clock: Any) -> None:
    worker = stepped()
    reaper, scheduler = worker.service(Reaper), worker.service(Scheduler)
    reaper.tick()
    assert scheduler._wakeup.is_set()
    assert not reaper._wakeup.is_set()


def test_after_a_ring_the_scheduler_believes_no_earlier_look(
    jobs: JobQueue, stepped: Stepped, clock: Any
) -> None:
    @jobs.task
    def work() -> None: ...

    worker = stepped()
    scheduler = worker.service(Scheduler)
    worker.service(Reaper).tick()
    clock.pass_(0.1)
    handle = work.options(delay=60).enqueue()
    worker.change(handle.id, run_at=after(-1))
    worker.parts.shared_poll.invalidate()
    assert scheduler._wakeup.is_set()
    scheduler.tick()
    assert handle.state is State.AVAILABLE


def test_a_scheduler_that_is_woken_again_and_again_asks_for_no_more_than_what_is_due(
    stepped: Stepped, clock: Any
) -> None:
    """By each change of the file, which in a drain are the worker's own commits."""
    worker = stepped()
    worker.service(Reaper).tick()
    asked: list[str] = []

    @event.listens_for(worker.store.engine, "before_cursor_execute")
    def _see(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    for _ in range(3):
        clock.pass_(0.1)
        worker.parts.shared_poll.invalidate()
        worker.service(Scheduler).tick()
    assert len([text for text in asked if "run_at" in text]) == 3
    assert [text for text in asked if "jobqueue_workers" in text] == []


def test_a_look_of_long_ago_is_not_believed(jobs: JobQueue, stepped: Stepped, clock: Any) -> None:
    @jobs.task
    def work() -> None: ...

    worker = stepped()
    handle = work.options(delay=60).enqueue()
    worker.service(Reaper).tick()
    worker.change(handle.id, run_at=after(-1))
    clock.pass_(0.5)
    worker.service(Scheduler).tick()
    assert handle.state is State.AVAILABLE


def test_a_worker_knows_whether_it_is_alone(stepped: Stepped, clock: Any) -> None:
    worker = stepped()
    idle(worker, clock)
    assert worker.inflight.contention.only_worker
    other = stepped()
    idle(worker, clock)
    assert not worker.inflight.contention.only_worker
    Leases(worker.store).deregister(other.inflight.lease.worker.id)
    idle(worker, clock)
    assert worker.inflight.contention.only_worker


# A bounded part of the fleet


class Fleet:
    """Leases, and the reapers of those that live."""

    def __init__(self, worker: Any) -> None:
        self.store = worker.store
        self.registered: Any = lambda: sorted(worker.workers())
        self.leases = Leases(self.store)
        self.ids: list[int] = []

    def add(self, count: int, **identity_: Any) -> list[int]:
        """So many workers that have just registered."""
        values = {"host": "h", "boot_id": "b", "pid_namespace": "n", "process_started": 1.0}
        added = []
        for number in range(count):
            who: dict[str, Any] = {"name": f"w{number}", "pid": 1, **values, **identity_}
            more = {"wakeup_address": None, "queues": None, "tasks": (), "concurrency": 1}
            added.append(self.leases.register(Registration(**who, **more, lease=LEASE)))
        self.ids += added
        return added

    def seen_by(self, id_: int, boot: str = "b") -> list[int]:
        with self.store.read() as connection:
            return [lease.id for lease in self.leases.poll(connection, id_, boot, "n").leases]

    def reaper(self, id_: int, me: process_identity.Identity | None = None) -> Reaper:
        me = me or process_identity.Identity("h", 1, "elsewhere", "n", 1.0)
        inflight = InFlight(1, LEASE)
        inflight.lease.worker = WorkerRef(id_, "w")
        return Reaper(
            self.leases,
            SharedPoll(self.store, self.leases, inflight, me),
            inflight,
            me,
            reaped=lambda _: None,
            events=EventDispatcher(EventStream()),
        )


@pytest.fixture
def fleet(stepped: Stepped) -> Fleet:
    worker = stepped()
    Leases(worker.store).deregister(worker.inflight.lease.worker.id)
    return Fleet(worker)


def test_a_small_fleet_is_watched_by_everybody_as_a_whole(fleet: Fleet) -> None:
    ids = fleet.add(PEERS + 1)
    for id_ in ids:
        assert sorted(fleet.seen_by(id_)) == sorted(other for other in ids if other != id_)


def test_in_a_large_fleet_everybody_is_watched_by_as_many_as_it_watches(fleet: Fleet) -> None:
    ids = [id_ for host in range(4) for id_ in fleet.add(15, boot_id=f"b{host}")]
    watchers = dict.fromkeys(ids, 0)
    host_peers = dict.fromkeys(ids, 0)
    for place, id_ in enumerate(ids):
        seen = fleet.seen_by(id_, f"b{place // 15}")
        assert id_ not in seen
        assert PEERS <= len(seen) <= PEERS + HOST_PEERS
        for other in seen:
            watchers[other] += 1
            host_peers[other] += ids.index(other) // 15 == place // 15
    assert min(watchers.values()) >= PEERS
    assert min(host_peers.values()) >= HOST_PEERS


def test_who_has_no_lease_watches_nobody(fleet: Fleet) -> None:
    ids = fleet.add(3)
    fleet.leases.deregister(ids[0])
    assert fleet.seen_by(ids[0], boot="elsewhere") == []


def test_half_of_a_fleet_that_dies_at_once_is_noticed_within_a_lease_and_two_seconds(
    fleet: Fleet, clock: Any
) -> None:
    dead, alive = fleet.add(24), fleet.add(24)
    reapers = [fleet.reaper(id_) for id_ in alive]
    for second in range(int(LEASE) + 2):
        for id_ in alive if second % 2 == 0 else []:
            fleet.leases.renew(id_, **BEAT)
        for reaper in reapers:
            reaper.tick()
        if second < LEASE - 1:
            assert len(fleet.registered()) == len(dead) + len(alive)
        clock.pass_(1)
    assert fleet.registered() == sorted(alive)


def test_any_number_of_processes_that_are_gone_is_noticed_in_one_go(
    fleet: Fleet, clock: Any
) -> None:
    me = process_identity.this_process()
    here = {"boot_id": me.boot_id, "pid_namespace": me.pid_namespace}
    own, *_ = fleet.add(1, **here, pid=me.pid, process_started=me.process_started)
    fleet.add(3 * PEERS, **here, pid=me.pid, process_started=0.5)
    reaper = fleet.reaper(own, me)
    rounds = 0
    while reaper.tick() == 0:
        rounds += 1
    assert fleet.registered() == [own]
    assert rounds <= 3 * PEERS / HOST_PEERS


def test_jobs_of_any_worker_that_is_gone_are_taken_by_anybody(
    jobs: JobQueue, stepped: Stepped, clock: Any
) -> None:
    @jobs.task
    def work() -> None: ...

    handle = work.enqueue()
    lost, judge = stepped(), stepped()
    lost.claim()
    Fleet(judge).add(2 * PEERS)
    judge.execute_sql(f"DELETE FROM jobqueue_workers WHERE id = {lost.inflight.lease.worker.id}")
    judge.service(Reaper).tick()
    assert handle.state is State.AVAILABLE


def test_looking_for_lost_jobs_writes_nothing(stepped: Stepped, clock: Any) -> None:
    worker = stepped()
    reaped: list[int] = []
    worker.service(Reaper)._leases.reap = lambda *_: reaped.append(1) or []
    for _ in range(5):
        clock.pass_(1)
        worker.service(Reaper).tick()
    assert reaped == []
