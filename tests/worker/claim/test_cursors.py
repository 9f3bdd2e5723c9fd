"""The cursors: in which order jobs are claimed, and that none of them is overlooked."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event

from jobqueue import JobQueue, State
from jobqueue.store.clock import now
from jobqueue.worker.claim import cursors as cursors_module
from jobqueue.worker.claim import planner as planner_module
from jobqueue.worker.upkeep.scheduler import Scheduler
from tests.worker.claim.conftest import ids, prefetching
from tests.worker.conftest import Stepped

PAST = [datetime(2020, 1, 1, 0, 0, n, tzinfo=UTC) for n in range(10)]


def test_jobs_are_claimed_by_priority_then_due_time_then_id(work: Any, stepped: Stepped) -> None:
    given = [(0, 5), (0, 1), (5, 0), (0, 1), (-3, 9), (-3, 9), (5, 0), (-3, 2)]
    made = [
        (priority, at, work.options(priority=priority, at=PAST[at]).enqueue().id)
        for priority, at in given
    ]
    worker = stepped(concurrency=20)
    assert ids(worker.claim()) == [id_ for _, _, id_ in sorted(made)]


def test_a_better_priority_that_arrives_later_is_found_by_the_next_sweep(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    plain = jobs.enqueue_many([work.call() for _ in range(6)])
    worker = stepped(concurrency=2)
    assert ids(worker.claim()) == ids(plain[:2])
    urgent = work.options(priority=-1).enqueue()
    worker.execute()
    worker.complete()
    assert cursors_module.RESCAN_INTERVAL <= 1.0
    assert worker.cursors.rescan_in() <= 1.0
    assert ids(worker.claim())[0] == urgent.id


def test_a_late_commit_with_an_older_id_is_found_by_the_next_sweep(
    work: Any, jobs: JobQueue, stepped: Stepped, backend_name: str
) -> None:
    worker = stepped(concurrency=2)
    if backend_name == "postgresql" or backend_name == "postgres":
        with worker.store.engine.connect() as connection, connection.begin():
            late = work.within(connection).enqueue()
            early = jobs.enqueue_many([work.call() for _ in range(4)])
            assert ids(worker.claim()) == ids(early[:2])
    else:  # There, a later commit cannot have an older id, but an older due time.
        early = jobs.enqueue_many([work.call() for _ in range(4)])
        assert ids(worker.claim()) == ids(early[:2])
        late = work.options(at=PAST[0]).enqueue()
    worker.execute()
    worker.complete()
    assert late.id in ids(worker.claim())


def test_between_sweeps_claims_go_on_behind_the_last_one(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handles = jobs.enqueue_many([work.call() for _ in range(9)])
    worker = stepped(concurrency=3)
    got = []
    worker.claim()
    worker.cursors._rescanned_at = float("inf")  # Never again.
    for _ in range(3):
        got += ids(worker.inbox())
        worker.execute()
        worker.complete()
        worker.claim(sweep=False)
    assert got == ids(handles)
    assert {handle.state for handle in handles} == {State.SUCCEEDED}


def test_a_queue_with_a_backlog_leaves_its_share_to_the_others(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    jobs.enqueue_many([work.options(queue="big").call() for _ in range(3000)])
    small = work.options(queue="small").enqueue()
    worker = stepped(concurrency=4)
    claims = worker.claim()
    assert len(claims) == 4
    assert small.id in ids(claims)


@pytest.mark.parametrize("queues", [None, "big,small"])
def test_every_queue_gets_a_share_of_every_round_even_of_a_single_slot(
    work: Any, jobs: JobQueue, stepped: Stepped, queues: str | None
) -> None:
    jobs.enqueue_many([work.options(queue="big").call() for _ in range(30)])
    small = jobs.enqueue_many([work.options(queue="small").call() for _ in range(3)])
    worker = stepped(concurrency=1, queues=queues)
    for _ in range(6):
        worker.step()
    assert {handle.state for handle in small} == {State.SUCCEEDED}


@pytest.mark.databases("sqlite")
def test_a_queue_of_very_many_priorities_does_not_hide_the_others(
    work: Any, jobs: JobQueue, stepped: Stepped, backend_name: str
) -> None:
    many = cursors_module.QUEUES_MAX + 1
    jobs.enqueue_many([work.options(queue="big", priority=n).call() for n in range(many)])
    small = work.options(queue="small").enqueue()
    worker = stepped(concurrency=4)
    assert small.id in ids(worker.claim())


@pytest.mark.parametrize("slots", [1, 3])
def test_of_more_queues_than_a_rescan_finds_each_has_its_turn(
    work: Any, jobs: JobQueue, stepped: Stepped, monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    monkeypatch.setattr(cursors_module, "QUEUES_MAX", 3)
    names = [f"q{n}" for n in range(6)]
    jobs.enqueue_many([work.options(queue=name).call() for name in names for _ in range(5)])
    worker = prefetching(stepped(concurrency=slots), 0)
    for turn in (1, 2):
        for _ in range(len(names) // slots):
            worker.step()
        ended = Counter(job.queue for job in jobs.list(state="succeeded"))
        assert ended == dict.fromkeys(names, turn)


def test_what_is_behind_the_queues_of_a_rescan_is_looked_for_at_once_unless_they_gave_nothing(
    work: Any, jobs: JobQueue, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursors_module, "QUEUES_MAX", 2)
    names = [f"q{n}" for n in range(4)]
    jobs.enqueue_many([work.options(queue=name).call() for name in names])
    worker = stepped(concurrency=8)
    assert len(worker.claim()) == 2
    assert worker.cursors.empty
    assert worker.cursors.rescan_in() == 0
    for name in names:
        jobs.pause(name)
    jobs.enqueue_many([work.options(queue=name).call() for name in names])
    worker.step()
    worker.claim()
    assert worker.cursors.empty
    assert worker.cursors.rescan_in() > 0


@pytest.mark.parametrize("sweep", [False, True])
def test_of_more_queues_than_slots_those_without_a_share_are_first_the_next_time(
    work: Any, stepped: Stepped, sweep: bool
) -> None:
    handles = [
        work.options(queue=f"q{n}", priority=-turn).enqueue()
        for turn in range(3, 0, -1)
        for n in range(5)
    ]
    worker = prefetching(stepped(concurrency=2), 0)
    order: list[int] = []
    while len(order) < 15:
        claims = worker.claim(sweep=sweep or not order)
        order += ids(claims)
        worker.execute()
        worker.complete()
        assert claims, order
    assert order == ids(handles)


def test_one_statement_claims_a_share_of_each_of_many_queues_and_priorities(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    calls = [
        work.options(queue=f"q{queue}", priority=priority).call()
        for queue in range(20)
        for priority in range(4)
    ]
    jobs.enqueue_many(calls)
    worker = stepped(concurrency=40)
    statements: list[str] = []

    @event.listens_for(worker.store.engine, "before_cursor_execute")
    def _see(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    claims = worker.claim()
    assert Counter(claim.queue for claim in claims) == {f"q{queue}": 2 for queue in range(20)}
    assert {claim.priority for claim in claims} == {0, 1}
    assert len([sql for sql in statements if sql.startswith("UPDATE jobqueue_jobs")]) == 1


def test_a_queue_of_which_a_full_claim_took_less_than_a_share_is_asked_again(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    jobs.enqueue_many([work.options(queue=f"q{n % 18:02}").call() for n in range(54)])
    worker = prefetching(stepped(concurrency=17), 0)
    taken = Counter[str]()
    for round_ in range(4):
        claims = worker.claim(sweep=round_ == 0)
        taken.update(claim.queue for claim in claims)
        if round_ == 0:
            assert sorted(taken.values()) == [1] + [2] * 8
        worker.execute()
        worker.complete()
    assert taken == {f"q{n:02}": 3 for n in range(18)}


def test_what_one_queue_does_not_use_the_others_may(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    jobs.enqueue_many([work.options(queue="big").call() for _ in range(20)])
    work.options(queue="small").enqueue()
    assert len(stepped(concurrency=10).claim()) == 10


def test_a_worker_serves_the_queues_that_it_was_given_and_no_other(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handles = {name: work.options(queue=name).enqueue() for name in ("a", "b", "c", "ab")}
    worker = stepped(queues="a,c")
    assert sorted(ids(worker.claim())) == sorted([handles["a"].id, handles["c"].id])


def test_a_queues_limit_holds_over_prefetched_and_running_jobs(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    mail = jobs.enqueue_many([work.options(queue="mail").call(n) for n in range(9)])
    jobs.enqueue_many([work.call() for _ in range(9)])
    worker = prefetching(stepped(concurrency=8, queues="mail:2,default"), 100)
    claims = worker.claim()
    assert [claim.id for claim in claims if claim.queue == "mail"] == ids(mail[:2])
    assert len(claims) == 11
    held = [claim for claim in worker.claim() if claim.queue == "mail"]
    assert len(held) == 2, "claims that wait count too"
    worker.execute()
    held = [claim for claim in worker.claim() if claim.queue == "mail"]
    assert len(held) <= 2
    worker.complete()
    for _ in range(10):
        worker.step()
    assert {handle.state for handle in mail} == {State.SUCCEEDED}


def test_a_queues_limit_holds_where_it_is_asked_again_for_what_others_left_over(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    jobs.enqueue_many([work.options(queue="mail").call() for _ in range(9)])
    jobs.enqueue_many([work.options(queue=queue).call() for queue in "abc"])
    worker = prefetching(stepped(concurrency=8, queues="mail:2,a,b,c"), 0)
    assert Counter(claim.queue for claim in worker.claim()) == {"mail": 2, "a": 1, "b": 1, "c": 1}


def test_jobs_of_a_paused_queue_are_not_claimed_until_it_is_resumed(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    paused = work.options(queue="mail").enqueue()
    free = work.enqueue()
    jobs.pause("mail")
    worker = stepped()
    assert ids(worker.claim()) == [free.id]
    jobs.pause("mail")
    assert ids(worker.claim()) == [free.id]
    jobs.resume("mail")
    assert sorted(ids(worker.claim())) == [paused.id, free.id]


def test_jobs_that_may_not_wait_are_never_prefetched(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    kinds = {
        "once": {"max_attempts": 1},
        "until-started": {"unique_key": "k", "unique_until": "started"},
        "crashed": {},
    }
    for queue, options in kinds.items():
        ordinary = jobs.enqueue_many([work.options(queue=queue).call() for _ in range(3)])
        solo = work.options(queue=queue, **options).enqueue()
        behind = jobs.enqueue_many([work.options(queue=queue).call() for _ in range(3)])
        worker = prefetching(stepped(concurrency=2, queues=queue), 100)
        if queue == "crashed":
            worker.change(solo.id, crashes=1)
        assert ids(worker.claim()) == ids(ordinary), queue
        assert ids(worker.claim()) == ids(ordinary), "and nothing overtakes it"
        worker.execute()
        worker.complete()
        assert ids(worker.claim()) == [solo.id, behind[0].id], queue
        worker.execute()
        worker.complete()
        assert ids(worker.claim()) == ids(behind[1:]), queue


def test_nothing_of_a_worse_priority_overtakes_a_job_that_waits_for_a_slot(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    first = work.enqueue()
    solo = work.options(max_attempts=1).enqueue()
    worse = work.options(priority=1).enqueue()
    elsewhere = work.options(queue="other").enqueue()
    worker = prefetching(stepped(concurrency=1), 100)
    for _ in range(4):
        assert solo.id not in ids(worker.claim())
        assert worse.id not in ids(worker.claim())
    assert set(ids(worker.claim())) <= {first.id, elsewhere.id}
    order: list[int] = []
    for _ in range(6):
        order += ids(worker.claim())
        worker.execute()
        worker.complete()
    order = list(dict.fromkeys(order))
    assert set(order) == {first.id, solo.id, worse.id, elsewhere.id}
    assert order.index(solo.id) < order.index(worse.id)


def test_jobs_that_may_not_wait_do_not_starve_behind_a_backlog(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    calls = [work.options(max_attempts=1 + n % 2).call(n) for n in range(40)]
    handles = jobs.enqueue_many(calls)
    worker = prefetching(stepped(concurrency=2), 10)
    for _ in range(40):
        worker.step()
    assert [handle.result(0) for handle in handles] == list(range(40))


def test_without_a_lease_in_the_database_nothing_is_claimed(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    handle = work.enqueue()
    worker = stepped()
    worker.execute_sql("DELETE FROM jobqueue_workers")
    assert worker.claim() == []
    assert handle.state is State.AVAILABLE


def test_a_job_that_is_promoted_is_found(work: Any, jobs: JobQueue, stepped: Stepped) -> None:
    handle = work.options(delay=3600).enqueue()
    worker = stepped()
    assert worker.claim() == []
    worker.change(handle.id, run_at=now())
    worker.parts.shared_poll.invalidate()  # As whoever has heard of a change.
    worker.service(Scheduler).tick()
    assert ids(worker.claim()) == [handle.id]


def test_cursors_say_when_they_know_of_no_jobs(work: Any, jobs: JobQueue, stepped: Stepped) -> None:
    worker = stepped()
    worker.claim()
    assert worker.cursors.empty
    work.enqueue()
    worker.planner.hint_work()
    assert worker.cursors.rescan_in() < planner_module.STALE_PREFETCH_AGE
    assert len(worker.claim()) == 1
