"""The services beside the line, by tick: due jobs, retention, events, the report, the drain."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from jobqueue import JobQueue, State
from jobqueue.store.clock import after
from jobqueue.events import EventStream
from jobqueue.records import ExpiredJob
from jobqueue.store.notify.notifier import Wakeup
from jobqueue.store.leases import Leases
from jobqueue.store.maintenance import BATCH, Maintenance
from jobqueue.worker.upkeep import listener as listener_module
from jobqueue.worker.upkeep.pruner import PRUNE_INTERVAL
from jobqueue.worker import process_identity
from jobqueue.worker import event_dispatcher
from jobqueue.worker.event_dispatcher import EventDispatcher
from jobqueue.worker import exit_conditions
from jobqueue.worker.exit_conditions import ExitWatch
from jobqueue.worker.upkeep.listener import Listener
from jobqueue.worker.upkeep.pruner import Pruner
from jobqueue.worker.upkeep.scheduler import Scheduler
from jobqueue.worker.shared_poll import SharedPoll, with_slack
from tests.worker.conftest import Stepped

WARNING = 30
DAY = 86_400.0


@pytest.fixture
def work(jobs: JobQueue) -> Any:
    @jobs.task(max_attempts=2)
    def work(fails: bool = False) -> int:
        if fails:
            raise ValueError("no")
        return 1

    return work


# The scheduler


def alone(
    worker: Any, poll: float, promoted: Any = lambda: None, leases: Leases | None = None
) -> Scheduler:
    """A scheduler that has every look of its own."""
    leases = leases or Leases(worker.store)
    shared_poll = SharedPoll(worker.store, leases, worker.inflight, process_identity.this_process())
    scheduler = Scheduler(
        *(Maintenance(worker.store), shared_poll, poll, promoted),
        events=EventDispatcher(EventStream()),
    )
    return scheduler


def test_the_scheduler_promotes_what_is_due_and_wakes_the_claimers(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    rings: list[int] = []
    worker = stepped()
    scheduler = alone(worker, 600.0, lambda: rings.append(1))
    assert scheduler.tick() == with_slack(600.0), "nothing is scheduled: the poll"
    soon = work.options(delay=300).enqueue()
    assert 0 <= scheduler.tick() <= 300
    later = work.options(delay=3600).enqueue()
    worker.change(soon.id, run_at=after(-1))
    assert scheduler.tick() < 0.1
    assert (soon.state, later.state) == (State.AVAILABLE, State.SCHEDULED)
    assert rings == [1]
    assert scheduler.tick() == with_slack(600.0)
    assert rings == [1]


def test_the_scheduler_promotes_in_batches_without_a_rest(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = stepped()
    handles = jobs.enqueue_many([work.options(delay=60).call() for _ in range(BATCH + 5)])
    worker.change(*[handle.id for handle in handles], run_at=after(-1))
    scheduler = alone(worker, 1.0)
    assert scheduler.tick() == 0
    assert 0 < scheduler.tick() < 1
    assert len(list(jobs.list(state=State.AVAILABLE, limit=None))) == BATCH + 5


def test_a_service_whose_round_fails_goes_on(work: Any, stepped: Stepped, lines: Any) -> None:
    worker = stepped()
    leases = Leases(worker.store)
    poll = leases.poll

    def refuse(*_: Any) -> Any:
        raise OperationalError("poll", {}, Exception("no database"))

    leases.poll = refuse  # type: ignore[method-assign]
    scheduler = alone(worker, 1.0, leases=leases)
    assert 0 < scheduler.round() <= 2.0  # type: ignore[operator]
    assert scheduler.failing
    leases.poll = poll  # type: ignore[method-assign]
    assert scheduler.round() == with_slack(1.0)
    assert not scheduler.failing
    assert len(lines(WARNING, "scheduler: failed 1 time")) == 1


# The listener


class Scripted:
    """A listener that hears what it is told to, each word after so many seconds of its own clock."""

    address = None

    def __init__(self, *words: tuple[float, Wakeup]) -> None:
        self.words = list(words)
        self.present = 0.0

    must_poll = False

    def wait(self, timeout: float) -> Wakeup:
        after_, word = self.words[0]
        if after_ > timeout:
            self.words[0] = (after_ - timeout, word)
            self.present += timeout
            return Wakeup.NOTHING
        self.present += after_
        return self.words.pop(0)[1]

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


def hear(monkeypatch: pytest.MonkeyPatch, *words: tuple[float, Wakeup]) -> list[Any]:
    """What a listener tells, each with the time."""
    told: list[Any] = []
    listener = Scripted(*words, (5.0, Wakeup.NOTHING))
    monkeypatch.setattr(listener_module.time, "monotonic", lambda: listener.present)
    service = Listener(
        listener,
        lambda heard: told.append((listener.present, heard)),
        lambda: told.append((listener.present, "later")),
        SimpleNamespace(poll=1.0, claimed=0),
    )
    while listener.present < 4.0:
        service.tick()
    return told


def test_who_is_in_no_hurry_is_told_of_a_ring_a_little_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = hear(monkeypatch, (1.0, Wakeup.NOTIFIED), (1.0, Wakeup.COMMIT))
    soon = pytest.approx(1 + listener_module.LISTENER_DEBOUNCE)
    again = pytest.approx(2 + listener_module.COMMIT_DEBOUNCE)
    assert told == [(1.0, Wakeup.NOTIFIED), (soon, "later"), (2.0, Wakeup.COMMIT), (again, "later")]


def test_rings_that_never_cease_do_not_put_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    step = listener_module.LISTENER_DEBOUNCE / 4
    told = hear(monkeypatch, *[(step, Wakeup.NOTIFIED)] * 400)
    assert sum(word is Wakeup.NOTIFIED for _, word in told) == 400
    laters = [at for at, word in told if word == "later"]
    gaps = [after_ - before for before, after_ in zip(laters, laters[1:], strict=False)]
    assert len(laters) > 50
    assert max(gaps) < 2 * listener_module.LISTENER_DEBOUNCE
    assert min(gaps) >= listener_module.LISTENER_DEBOUNCE


def test_where_nothing_is_heard_looks_follow_soon_while_jobs_come_and_no_oftener_than_polls_else() -> (
    None
):
    planner, looks = SimpleNamespace(poll=1.0, claimed=0), []
    listener = SimpleNamespace(must_poll=True)
    service = Listener(listener, looks.append, lambda: None, planner)
    assert service.tick() == 1.0 and looks == []  # The claimer polls.
    planner.claimed = 3
    assert service.tick() == listener_module.POLL_SOON and looks == [Wakeup.COMMIT]
    pauses = [service.tick() for _ in range(40)]
    assert pauses[0] < 2 * listener_module.POLL_SOON
    assert pauses == sorted(pauses)
    assert pauses[-1] == 1.0
    assert len(looks) == 1 + sum(pause < 1.0 for pause in pauses)


# The pruner


def finals(worker: Any, jobs: JobQueue, work: Any) -> dict[State, int]:
    """One job in each final state."""
    succeeded, failed, cancelled = work.enqueue(), work.options(max_attempts=1).enqueue(True), None
    cancelled = work.options(delay=60).enqueue()
    jobs.cancel(cancelled.id)
    worker.step()
    states = (State.SUCCEEDED, State.FAILED, State.CANCELLED)
    found = dict(zip(states, (succeeded.id, failed.id, cancelled.id), strict=True))
    assert {state: worker.state(id_) for state, id_ in found.items()} == {s: s for s in states}
    return found


def kept(jobs: JobQueue) -> set[int]:
    return {record.id for record in jobs.list(limit=None)}


def test_by_default_failed_jobs_are_kept_for_30_days_and_others_for_7(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = stepped()
    pruner = worker.service(Pruner)
    old, live = finals(worker, jobs, work), work.options(delay=60).enqueue()
    worker.make_old(*old.values(), seconds=7 * DAY - 60)
    assert pruner.tick() == PRUNE_INTERVAL
    assert kept(jobs) == {*old.values(), live.id}
    worker.make_old(*old.values(), seconds=7 * DAY + 60)
    pruner.tick()
    assert kept(jobs) == {old[State.FAILED], live.id}
    worker.make_old(old[State.FAILED], seconds=30 * DAY - 60)
    pruner.tick()
    assert kept(jobs) == {old[State.FAILED], live.id}
    worker.make_old(old[State.FAILED], seconds=30 * DAY + 60)
    pruner.tick()
    assert kept(jobs) == {live.id}


def test_retention_can_be_set_and_none_keeps_for_ever(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = stepped(keep_succeeded=None, keep_failed="1h")
    old = finals(worker, jobs, work)
    worker.make_old(*old.values(), seconds=3000 * DAY)
    worker.service(Pruner).tick()
    assert kept(jobs) == {old[State.SUCCEEDED], old[State.CANCELLED]}
    other = stepped(keep_succeeded=60, keep_failed=None)
    other.service(Pruner).tick()
    assert kept(jobs) == set()


def test_a_full_batch_is_followed_by_the_next_at_once(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = stepped()
    handles = jobs.enqueue_many([work.options(delay=60).call() for _ in range(BATCH + 1)])
    ids = [handle.id for handle in handles]
    jobs.cancel(*ids)
    worker.make_old(*ids, seconds=8 * DAY)
    pruner = worker.service(Pruner)
    assert pruner.tick() < 1
    assert len(kept(jobs)) == 1
    assert pruner.tick() == PRUNE_INTERVAL
    assert kept(jobs) == set()


def test_the_pruner_adds_up_old_counts_and_loses_none(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = stepped(concurrency=1)
    for _ in range(5):
        work.enqueue()
        worker.step()
    before = _rows(worker)
    assert before >= 5
    worker.execute_sql(_MINUTES_AGO[worker.store.backend.name])
    worker.service(Pruner).tick()
    assert _rows(worker) < before
    assert worker.counted("succeeded") == 5
    assert worker.counted("runs") == 5


_MINUTES_AGO = {
    "sqlite": "UPDATE jobqueue_counters SET minute = '2020-01-01 00:00:00.000000'",
    "postgresql": "UPDATE jobqueue_counters SET minute = '2020-01-01 00:00:00+00'",
}


def _rows(worker: Any) -> int:
    from sqlalchemy import func, select

    from jobqueue.store.schema import counters

    with worker.store.read() as connection:
        return connection.execute(select(func.count()).select_from(counters)).scalar_one()


# The announcer


def publish(announcer: EventDispatcher, number: int, name: str = "failed") -> None:
    announcer.publish(name, ExpiredJob(number, "work", "default", 1))


def test_subscribers_hear_in_order_and_one_that_raises_stops_nobody(lines: Any) -> None:
    stream = EventStream()
    heard: list[int] = []
    stream.subscribe("failed", lambda _: 1 / 0)
    stream.subscribe("failed", lambda event: heard.append(event.job))
    announcer = EventDispatcher(stream)
    for number in range(3):
        publish(announcer, number)
    publish(announcer, 9, "succeeded")
    assert announcer.tick() is None
    assert heard == [0, 1, 2]
    assert len(lines(40, "raised for job")) == 3


def test_what_is_pending_at_the_end_is_still_told() -> None:
    stream = EventStream()
    heard: list[int] = []
    stream.subscribe("failed", lambda event: heard.append(event.job))
    announcer = EventDispatcher(stream)
    publish(announcer, 1)
    announcer.start()
    announcer.stop()
    assert announcer.join(60)
    assert heard == [1]


def test_events_beyond_a_bound_are_dropped_and_counted(
    lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_dispatcher, "EVENTS_MAX", 10)
    stream = EventStream()
    heard: list[int] = []
    stream.subscribe("failed", lambda event: heard.append(event.job))
    announcer = EventDispatcher(stream)
    for number in range(1511):
        publish(announcer, number)
    announcer.tick()
    assert heard == list(range(10))
    assert lines(WARNING, "too slow") == [
        "subscribers are too slow: 1 events dropped",
        "subscribers are too slow: 1001 events dropped",
    ]
    publish(announcer, 5)
    announcer.tick()
    assert len(heard) == 11


# The last job, the drain


def test_the_last_job_is_over_when_its_outcome_is_recorded(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    jobs.enqueue_many([work.call() for _ in range(5)])
    worker = stepped(max_jobs=2)
    last, ended = worker.service(ExitWatch), worker.assembly.exit_conditions.ended
    assert last.tick() is not None
    worker.claim()
    worker.execute()
    assert last.tick() is not None, "the database has not answered"
    assert not ended.is_set()
    worker.complete()
    assert last.tick() is None
    assert ended.is_set()


def test_a_drain_that_waits_for_the_database_holds_up_no_other_stop_condition(
    work: Any, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = stepped(drain=True, max_jobs=5, max_memory="1TB")
    asked: list[str] = []
    monkeypatch.setattr(
        exit_conditions, "drained", lambda *_: pytest.fail("the drain asks the database")
    )
    monkeypatch.setattr(exit_conditions, "resident", lambda: asked.append("memory") or 0)
    watches = [service for service in worker.parts.services if type(service) is ExitWatch]
    others = [service for service in watches if service.name != "drain"]
    assert len(watches) == 2 and len(others) == 1
    assert others[0].tick() == exit_conditions.JOBS_INTERVAL
    assert asked == ["memory"]
    monkeypatch.setattr(exit_conditions, "resident", lambda: 2 * 10**12)
    assert others[0].tick() is None
    assert worker.worker.outgrown and worker.worker.wait(0), "while the drain has not ended"
    assert not any(type(service) is ExitWatch for service in stepped().parts.services)


def drained(worker: Any) -> bool:
    worker.claim()
    return worker.service(ExitWatch).tick() is None


def test_a_drain_ends_when_nothing_is_left(work: Any, jobs: JobQueue, stepped: Stepped) -> None:
    worker = stepped(drain=True)
    assert drained(worker)
    assert worker.assembly.exit_conditions.ended.is_set()


def test_a_drain_waits_for_what_runs_anywhere(work: Any, jobs: JobQueue, stepped: Stepped) -> None:
    work.enqueue()
    other, worker = stepped(), stepped(drain=True)
    other.claim()
    assert not drained(worker)
    other.execute()
    other.complete()
    assert drained(worker)


def test_a_drain_waits_for_its_own_jobs_and_their_outcomes(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    work.enqueue()
    worker = stepped(drain=True)
    assert not drained(worker)
    worker.execute()
    assert worker.service(ExitWatch).tick() is not None
    worker.complete()
    assert drained(worker)


def test_a_drain_waits_for_retries_and_snoozed_jobs(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handle = work.enqueue(True)
    worker = stepped(drain=True)
    worker.step()
    assert handle.state is State.SCHEDULED
    assert not drained(worker)
    jobs.retry(handle.id)
    worker.step()
    assert handle.state is State.FAILED
    assert drained(worker)


def test_a_drain_does_not_wait_for_what_others_must_do_first_and_says_how_many(
    work: Any, jobs: JobQueue, stepped: Stepped, lines: Any, url: str
) -> None:
    with JobQueue(url) as other:

        @other.task
        def unknown() -> None: ...

        unknown.options(delay=60).enqueue()
        unknown.enqueue()
        unknown.options(queue="mail").enqueue()
    for _ in range(2):
        work.options(delay=60).enqueue()
    for _ in range(4):
        work.options(queue="mail").enqueue()
    jobs.pause("mail")
    worker = stepped(drain=True)
    worker.step()
    assert drained(worker)
    assert lines(WARNING, "not waited for") == [
        "not waited for: 3 jobs of unknown tasks",
        "not waited for: 4 jobs in paused queues",
        "not waited for: 2 jobs delayed",
    ]


def test_a_drain_of_some_queues_looks_at_those_alone(
    work: Any, jobs: JobQueue, stepped: Stepped, lines: Any
) -> None:
    work.options(queue="other").enqueue()
    work.options(queue="other", delay=60).enqueue()
    assert drained(stepped(drain=True, queues="mail,default"))
    assert lines(WARNING, "not waited for") == []
    assert not drained(stepped(drain=True, queues="mail,other"))


def test_services_may_be_stopped_before_they_begin_and_woken_after_they_end() -> None:
    announcer = EventDispatcher(EventStream())
    announcer.stop()
    announcer.start()
    assert announcer.join(0)
    announcer.wake()
    assert threading.active_count() < 50
