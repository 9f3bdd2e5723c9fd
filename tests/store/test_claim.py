"""Claims: which jobs a worker takes, in which order, and that nobody else has them then."""

import itertools
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import astuple, replace
import pytest
from sqlalchemy import event, insert, select, text

from jobqueue.records import JobFilter
from jobqueue.states import State
from jobqueue.store.claims import END, START, ClaimBatch, QueueHead, WorkerRef
from jobqueue.store.jobs import Jobs
from jobqueue.store.pauses import Pauses
from jobqueue.store.dialects.base import PLACE
from jobqueue.store.schema import PauseKind, jobs, queues
from jobqueue.store.database import Store
from tests.process_factory import popen
from tests.store.conftest import StoreKit

PAST = [datetime(2020, 1, 1, 0, 0, n, tzinfo=UTC) for n in range(10)]


def ids(claims: Any) -> list[int]:
    return [claim.id for claim in claims]


@pytest.mark.databases("sqlite")
def test_many_long_arguments_do_not_exceed_the_longest_text_of_sqlite(kit: StoreKit) -> None:
    args = f'{{"args":["{10_000 * "a"}"],"kwargs":{{}}}}'
    given, holder, limit = kit.add_many(20, args=args), kit.worker(), sqlite3.SQLITE_LIMIT_LENGTH
    with kit.store.write() as connection:
        driver: Any = connection.connection.driver_connection
        longest = driver.setlimit(limit, 100_000)
        claims = kit.claims.claim(connection, holder, "default", limit=20, free=20)
        driver.setlimit(limit, longest)
    assert [(claim.id, claim.args) for claim in claims] == [(id_, args) for id_ in given]


def test_a_claim_carries_the_job(kit: StoreKit) -> None:
    id_ = kit.add(
        task="send",
        queue="mail",
        priority=3,
        args='{"args":[1],"kwargs":{}}',
        timeout=1.5,
        backoff="{}",
    )
    holder = kit.worker()
    claim = kit.take_one(holder, queue="mail")
    job = kit.row(id_)
    assert astuple(claim)[:7] == (id_, 1, "send", "mail", '{"args":[1],"kwargs":{}}', 1, 10)
    assert (claim.run_at, claim.started_at) == (job.run_at, job.started_at)
    assert (claim.timeout, claim.backoff, claim.snoozes, claim.crashes) == (1.5, "{}", 0, 0)
    assert (claim.immediate_only, claim.at_most_once) == (False, False)
    assert (job.state, job.worker, job.attempt, job.fence) == (State.RUNNING, "w1", 1, 1)
    assert kit.column(id_, "worker_id") == holder.id


def test_jobs_are_claimed_by_due_time_and_then_by_id(kit: StoreKit) -> None:
    late, early, same1, same2 = (kit.add(at=PAST[n]) for n in (5, 1, 3, 3))
    assert ids(kit.take(kit.worker())) == [early, same1, same2, late]


def test_only_the_first_jobs_in_order_are_claimed(kit: StoreKit) -> None:
    every = [kit.add(at=PAST[9 - n]) for n in range(10)]
    assert ids(kit.take(kit.worker(), limit=3)) == every[:-4:-1]


def test_a_claim_is_for_one_queue_better_priorities_first(kit: StoreKit) -> None:
    kit.add(queue="other"), kit.add(queue="defaul"), kit.add(queue="default2")
    given = [(0, 5), (0, 1), (5, 0), (0, 1), (-3, 9), (-3, 9), (5, 0), (-3, 2)]
    made = [(p, at, kit.add(priority=p, at=PAST[at])) for p, at in given]
    claims = kit.take(kit.worker())
    assert ids(claims) == [id_ for _, _, id_ in sorted(made)]
    assert [claim.priority for claim in claims] == sorted(p for p, _ in given)


def test_the_cursor_leaves_out_what_is_not_after_it(kit: StoreKit) -> None:
    a, b, c = (kit.add(at=PAST[1]) for _ in range(3))
    kit.add(at=PAST[0])
    kit.add(at=PAST[9], priority=-1)
    d = kit.add(at=PAST[2])
    worse = kit.add(at=PAST[0], priority=1)
    assert ids(kit.take(kit.worker(), cursor=(0, PAST[1], a))) == [b, c, d, worse]


def test_the_cursor_of_a_batch_leads_on_to_the_next(kit: StoreKit) -> None:
    every = kit.add_many(5, priority=-1) + kit.add_many(5)
    holder, cursor, taken = kit.worker(), START, []
    while claims := kit.take(holder, cursor=cursor, limit=3):
        taken += ids(claims)
        cursor = claims.cursor
    assert taken == every


def test_queues_come_in_order_and_only_where_something_is_to_claim(kit: StoreKit) -> None:
    for queue, priority in [("b", 0), ("a", 7), ("a", -7), ("a", -7), ("c", 2)]:
        kit.add(queue=queue, priority=priority)
    kit.add(queue="later", delay=60.0)
    kit.put(State.SUCCEEDED, queue="done")
    with kit.store.read() as connection:
        found = kit.claims.next_queues(connection, limit=9)
        parts = [kit.claims.next_queues(connection, *from_, limit=2) for from_ in ([], ["b"])]
        behind = kit.claims.next_queues(connection, "cc", limit=2)
    assert found == [QueueHead("a", -7), QueueHead("b", 0), QueueHead("c", 2)]
    assert (parts, behind) == ([found[:2], found[1:]], [])


# The head of a queue


def test_the_head_of_a_queue_is_claimed_by_priority_then_due_time_then_id(kit: StoreKit) -> None:
    given = [(0, 5), (0, 1), (5, 0), (0, 1), (-3, 9), (-3, 9), (5, 0), (-3, 2)]
    made = [(p, at, kit.add(priority=p, at=PAST[at])) for p, at in given]
    kit.add(queue="other", priority=-9)
    holder = kit.worker()
    claims = kit.claims.claim_first(holder, "default", 5)
    assert ids(claims) == [id_ for _, _, id_ in sorted(made)][:5]
    assert (
        ids(kit.claims.claim_first(holder, "default", 5)) == [id_ for _, _, id_ in sorted(made)][5:]
    )


def test_a_claim_of_the_head_carries_what_any_claim_does(kit: StoreKit) -> None:
    once = kit.add(max_attempts=1, args='{"args":[1],"kwargs":{}}', timeout=1.5, backoff="{}")
    other = kit.add(max_attempts=1, args='{"args":[1],"kwargs":{}}', timeout=1.5, backoff="{}")
    holder = kit.worker()
    [head] = kit.claims.claim_first(holder, "default", 1)
    plain = kit.take_one(holder)
    assert (head.id, plain.id) == (once, other)
    assert (head.run_at, head.started_at) == (kit.row(once).run_at, kit.row(once).started_at)
    same = {"id": 0, "run_at": plain.run_at, "started_at": plain.started_at}
    assert replace(head, **same) == replace(plain, id=0)
    assert [*map(type, astuple(head))] == [*map(type, astuple(plain))]
    assert (kit.state(once), kit.column(once, "worker_id")) == (State.RUNNING, holder.id)
    assert kit.finish(holder, kit.succeeded(head)) == {once: State.SUCCEEDED}


def test_the_head_of_a_paused_queue_and_of_no_lease_is_not_claimed(kit: StoreKit) -> None:
    paused, id_, holder = kit.add(queue="q"), kit.add(), kit.worker()
    kit.pause("q")
    assert kit.claims.claim_first(holder, "q", 9) == []
    kit.leases.deregister(holder.id)
    assert kit.claims.claim_first(holder, "default", 9) == []
    assert (kit.state(paused), kit.state(id_)) == (State.AVAILABLE, State.AVAILABLE)


@pytest.mark.databases("postgres")
def test_a_claim_of_the_head_skips_what_another_is_just_claiming(
    kit: StoreKit, second_store: Any
) -> None:
    from jobqueue.store.claims import Claims

    every = kit.add_many(6)
    one, two = kit.worker("one"), kit.worker("two")
    impatient = Claims(second_store(lock_timeout="2s", statement_timeout="5s"))
    with kit.store.write() as first:
        mine = kit.claims.claim(first, one, "default", START, limit=3, free=3)
        theirs = impatient.claim_first(two, "default", 3)
    assert (ids(mine), ids(theirs)) == (every[:3], every[3:])


# Whom a claim is for


@pytest.mark.parametrize("state", [state for state in State if state is not State.AVAILABLE])
def test_only_an_available_job_is_claimed(kit: StoreKit, state: State) -> None:
    kit.put(state, queue="q")
    assert kit.take(kit.worker(), queue="q") == []


def test_each_claim_charges_an_attempt_and_raises_the_fence(kit: StoreKit) -> None:
    holder, id_ = kit.worker(), kit.add()
    for attempt in (1, 2, 3):
        claim = kit.take_one(holder)
        assert (claim.attempt, claim.fence) == (attempt, 2 * attempt - 1)
        kit.finish(holder, kit.errored(claim, delay=None))
        kit.make_due(id_)
        assert kit.maintenance.promote() == ["default"]


# Jobs that may not be held without being begun

SOLO = [{"max_attempts": 1}, {"crashes": 1}, {"unique_key": "k", "unique_until": "started"}]


def add_solo(kit: StoreKit, given: dict[str, Any]) -> int:
    crashes = given.get("crashes")
    id_ = kit.add(**{key: value for key, value in given.items() if key != "crashes"})
    if crashes:
        kit.change(id_, crashes=crashes)
    return id_


@pytest.mark.parametrize("given", SOLO)
def test_a_solo_job_is_claimed_only_as_far_as_slots_are_free(
    kit: StoreKit, given: dict[str, Any]
) -> None:
    before = kit.add_many(2)
    solo = add_solo(kit, given)
    behind = kit.add_many(2)
    holder = kit.worker()
    first = kit.take(holder, free=0)
    assert (ids(first), first.stopped_at_immediate) == (before, True)
    again = kit.take(holder, free=0)
    assert (ids(again), again.stopped_at_immediate) == ([], True)
    [claim] = kit.take(holder, free=1, limit=1)
    assert (claim.id, claim.immediate_only, claim.at_most_once) == (
        solo,
        True,
        given == {"max_attempts": 1},
    )
    rest = kit.take(holder, free=0)
    assert (ids(rest), rest.stopped_at_immediate) == (behind, False)


@pytest.mark.parametrize("given", SOLO)
def test_nothing_behind_a_solo_job_is_taken_before_it(kit: StoreKit, given: dict[str, Any]) -> None:
    first, second = kit.add_many(2)
    solo = add_solo(kit, given)
    behind = kit.add_many(3)
    holder = kit.worker()
    assert ids(kit.take(holder, free=2)) == [first, second]
    assert ids(kit.take(holder, free=1)) == [solo, *behind]


def test_each_solo_job_needs_a_slot_of_its_own(kit: StoreKit) -> None:
    """The places in a claim are the order of beginning, so every job before it needs one too."""
    kinds = [10, 1, 10, 1, 1, 10]
    every = [kit.add(max_attempts=most) for most in kinds]
    holder = kit.worker()
    assert ids(kit.take(holder, free=2)) == every[:3]
    assert ids(kit.take(holder, free=1)) == every[3:4]
    assert ids(kit.take(holder, free=1)) == every[4:]


def test_jobs_that_may_wait_are_taken_beyond_the_free_slots(kit: StoreKit) -> None:
    every = kit.add_many(10)
    assert ids(kit.take(kit.worker(), free=1)) == every


def test_one_start_stays_one_start_after_an_operators_retry(kit: StoreKit) -> None:
    id_ = kit.put(State.FAILED, max_attempts=1, queue="q")
    kit.jobs.retry(JobFilter(ids=(id_,)))
    assert kit.take(kit.worker(), queue="q", free=0) == []
    claim = kit.take_one(kit.worker(), queue="q")
    assert (claim.at_most_once, claim.immediate_only, claim.attempt, claim.max_attempts) == (
        True,
        True,
        2,
        2,
    )


# Who may not claim


def test_nothing_is_claimed_from_a_paused_queue(kit: StoreKit) -> None:
    waiting, other = kit.add(queue="q"), kit.add()
    kit.pause("q")
    holder = kit.worker()
    assert kit.take(holder, queue="q") == []
    assert ids(kit.take(holder)) == [other]
    with kit.store.write() as connection:
        connection.execute(text("UPDATE jobqueue_queues SET paused_at = NULL"))
    assert ids(kit.take(holder, queue="q")) == [waiting]


def test_a_worker_whose_lease_is_gone_claims_nothing(kit: StoreKit) -> None:
    id_, holder = kit.add(), kit.worker()
    kit.leases.deregister(holder.id)
    assert kit.take(holder) == []
    assert (kit.state(id_), kit.row(id_).fence) == (State.AVAILABLE, 0)


def test_a_claim_that_rolls_back_never_was(kit: StoreKit) -> None:
    id_, holder = kit.add(), kit.worker()
    with pytest.raises(ZeroDivisionError), kit.store.write() as connection:
        taken = kit.claims.claim(connection, holder, "default", START, limit=9, free=9)
        assert ids(taken) == [id_]
        raise ZeroDivisionError
    job = kit.row(id_)
    assert (job.state, job.attempt, job.fence, job.worker) == (State.AVAILABLE, 0, 0, None)
    assert kit.finish(holder, kit.succeeded(taken[0])) == {}
    assert kit.take_one(holder).fence == 1


# Two at once


@pytest.mark.databases("postgres")
def test_a_claimer_skips_what_another_is_just_claiming(kit: StoreKit, second_store: Any) -> None:
    every = kit.add_many(6)
    one, two = kit.worker("one"), kit.worker("two")
    impatient = second_store(lock_timeout="2s", statement_timeout="5s")
    take = {"limit": 3, "free": 3}
    with kit.store.write() as first:
        mine = kit.claims.claim(first, one, "default", START, **take)
        with impatient.write() as second:
            theirs = kit.claims.claim(second, two, "default", START, **take)
    assert (ids(mine), ids(theirs)) == (every[:3], every[3:])


def test_jobs_that_were_held_back_are_as_if_nobody_had_touched_them(kit: StoreKit) -> None:
    before = kit.add_many(2)
    solo, behind = kit.add(max_attempts=1), kit.add()
    assert ids(kit.take(kit.worker(), limit=9, free=2)) == before
    for id_ in (solo, behind):
        job = Jobs(kit.store).get(id_)
        assert job is not None
        assert (job.state, job.attempt, job.fence) == (State.AVAILABLE, 0, 0)
        assert (job.worker, job.started_at) == (None, None)


@pytest.mark.databases("postgres")
def test_upkeep_skips_what_another_worker_is_just_changing(
    kit: StoreKit, second_store: Any
) -> None:
    due, orphan, old = kit.add(delay=60.0), kit.add(), kit.put(State.SUCCEEDED, queue="old")
    gone = kit.worker("gone")
    kit.take_one(gone)
    kit.leases.deregister(gone.id)
    kit.make_due(due)
    impatient = second_store(lock_timeout="2s")
    with kit.store.write() as connection:
        connection.execute(text("SELECT 1 FROM jobqueue_jobs FOR UPDATE"))
        from jobqueue.store.leases import Leases
        from jobqueue.store.maintenance import Maintenance

        other = Maintenance(impatient)
        assert (other.promote(), other.prune(State.SUCCEEDED, -60.0)) == ([], 0)
        assert Leases(impatient).reap() == []
    assert (kit.state(due), kit.state(orphan)) == (State.SCHEDULED, State.RUNNING)
    assert kit.state(old) is State.SUCCEEDED


def test_threads_that_claim_at_once_share_the_jobs_without_a_double(
    kit: StoreKit, together: Any
) -> None:
    every = kit.add_many(120)
    holders = [kit.worker(f"w{n}") for n in range(4)]

    def drain(holder: WorkerRef) -> list[int]:
        taken: list[int] = []
        while claims := kit.take(holder, limit=7):
            taken += ids(claims)
        return taken

    shares = together(*[lambda holder=holder: drain(holder) for holder in holders])
    assert sorted(sum(shares, [])) == every
    assert all(kit.row(id_).attempt == 1 for id_ in every[:10])


CLAIMER = """
import sys
from jobqueue.store.database import Store
from tests.process_factory import popen
from jobqueue.store.claims import START, Claims, WorkerRef
store, holder = Store(sys.argv[1]), WorkerRef(int(sys.argv[2]), "child")
claims = Claims(store)
print("ready", flush=True)
sys.stdin.readline()
while True:
    with store.write() as connection:
        taken = claims.claim(connection, holder, "default", START, limit=7, free=7)
    if not taken:
        break
    print(*(claim.id for claim in taken), flush=True)
"""


def test_processes_that_claim_at_once_share_the_jobs_without_a_double(
    kit: StoreKit, store_url: str
) -> None:
    every = kit.add_many(120)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [
        popen([sys.executable, "-c", CLAIMER, store_url, str(kit.worker().id)], **pipes)
        for _ in range(2)
    ]
    try:
        assert [child.stdout.readline() for child in children] == ["ready\n"] * 2
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        outputs = [child.communicate(timeout=60)[0] for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert sorted(map(int, " ".join(outputs).split())) == every
