"""Claims from many queues by one statement."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


def claim_queues(kit: StoreKit, cursors: Any, **most: int) -> dict[str, ClaimBatch]:
    holder = kit.worker()
    with kit.store.write() as connection:
        return kit.claims.claim_queues(connection, holder, cursors, **most)


def test_one_statement_claims_from_each_queue_behind_its_cursor_and_not_from_closed_ones(
    kit: StoreKit,
) -> None:
    made = {
        (queue, priority): [kit.add(queue=queue, priority=priority, at=PAST[at]) for at in (2, 0)]
        for queue in ("a", "b", "paused", "limited", "other")
        for priority in (1, 0)
    }
    switches = [("paused", PAST[0], None), ("limited", None, 1)]
    with kit.store.write() as connection:
        for name, paused_at, limit in switches:
            values = {"name": name, "paused_at": paused_at, "max_running": limit}
            connection.execute(insert(queues).values(values))
    cursors = {"limited": START, "b": (0, PAST[0], made["b", 0][1]), "paused": START, "a": START}
    taken = claim_queues(kit, cursors, share=3, limit=9, free=9)
    assert {queue: ids(batch) for queue, batch in taken.items()} == {
        "limited": [],
        "b": [made["b", 0][0], *reversed(made["b", 1])],
        "paused": [],
        "a": [*reversed(made["a", 0]), made["a", 1][1]],
    }
    assert not any(batch.cut_short for batch in taken.values())


def test_of_more_queues_than_may_be_claimed_those_that_are_given_first_are_asked(
    kit: StoreKit,
) -> None:
    made = {queue: kit.add_many(3, queue=queue) for queue in ("a", "b", "c", "d", "e")}
    cursors = dict.fromkeys(("e", "none", "c", "a", "d"), START)
    taken = claim_queues(kit, cursors, share=2, limit=5, free=9)
    assert {queue: ids(batch) for queue, batch in taken.items()} == {
        "e": made["e"][:2],
        "none": [],
        "c": made["c"][:2],
        "a": made["a"][:1],
    }
    assert [batch.cut_short for batch in taken.values()] == [False, False, False, True]


def test_a_claim_that_ends_within_a_queue_takes_the_first_of_it(kit: StoreKit) -> None:
    """By priority, and not by id, in which SQLite finds them."""
    kit.add(queue="a")
    late = [kit.add(queue="b", priority=priority) for priority in (5, 4, 3, 2, 1)]
    taken = claim_queues(kit, {"a": START, "b": START}, share=5, limit=3, free=9)
    assert ids(taken["b"]) == [late[4], late[3]]
    assert taken["b"].cut_short


def test_a_claim_ends_at_the_place_up_to_which_it_is_asked(kit: StoreKit) -> None:
    every = [kit.add(queue="a", priority=place // 2, at=PAST[3]) for place in range(4)]
    kit.add(queue="a", priority=1, at=PAST[5])
    holder = kit.worker()
    with kit.store.write() as connection:
        for end, found in ((every[1], every[:2]), (every[2], every[2:3])):
            ends = {"a": (int(end > every[1]), PAST[3], end)}
            taken = kit.claims.claim_queues(
                connection, holder, {"a": START}, ends, share=9, limit=9, free=9
            )
            assert ids(taken["a"]) == found


def test_a_claim_takes_what_is_behind_its_cursor_and_not_behind_its_end(kit: StoreKit) -> None:
    """Wherever these are: in one instant, in one priority, or further apart, or the wrong way."""
    for priority, *times in ((2, 3, 5, 5), (1, 3), (0, 5, 3, 3)):
        for at in times:
            kit.add(queue="a", priority=priority, at=PAST[at])
    with kit.store.read() as connection:
        places = sorted(connection.execute(select(*(jobs.c[name] for name in PLACE))).all())
    holder = kit.worker()
    for cursor, end in itertools.product([START, *places], [*places, END]):
        with kit.store.engine.connect().execution_options(jobqueue_write=True) as connection:
            transaction = connection.begin()
            taken = kit.claims.claim_queues(
                connection, holder, {"a": cursor}, {"a": end}, share=9, limit=9, free=9
            )
            transaction.rollback()
        assert ids(taken["a"]) == [place[2] for place in places if cursor < place <= end][:9]


def test_of_the_given_queues_those_that_have_jobs_are_found(kit: StoreKit) -> None:
    for queue, priority in [("b", 3), ("a", 7), ("a", -7), ("ab", 0)]:
        kit.add(queue=queue, priority=priority)
    kit.add(queue="later", delay=60.0)
    with kit.store.read() as connection:
        found = kit.claims.heads(connection, ["b", "later", "none", "a"])
        assert found == [QueueHead("a", -7), QueueHead("b", 3)]
    Pauses(kit.store).pause(PauseKind.TASK, "any")
    with kit.store.read() as connection:
        assert kit.claims.heads(connection, ["a"]) == [QueueHead("a", -7, is_any_paused=True)]
        assert kit.claims.next_queues(connection, "b", limit=1)[0].is_any_paused


def test_of_many_queues_each_ends_at_a_job_that_must_start_and_cannot(kit: StoreKit) -> None:
    one, solo = kit.add(queue="a"), kit.add(queue="a", max_attempts=1)
    kit.add(queue="a")
    other = kit.add(queue="b", max_attempts=1)
    taken = claim_queues(kit, {"b": START, "a": START}, share=3, limit=9, free=1)
    assert [(ids(batch), batch.stopped_at_immediate) for batch in taken.values()] == [
        ([other], False),
        ([one], True),
    ]
    assert (kit.state(solo), kit.row(solo).fence) == (State.AVAILABLE, 0)


def test_a_revoked_worker_claims_from_none_of_many_queues(kit: StoreKit) -> None:
    for queue in ("a", "b"):
        kit.add(queue=queue)
    holder = kit.worker()
    kit.leases.deregister(holder.id)
    with kit.store.write() as connection:
        taken = kit.claims.claim_queues(
            connection, holder, {"a": START, "b": START}, share=3, limit=9, free=9
        )
    assert not any(taken.values())


@pytest.fixture
def wait_in_update(kit: StoreKit) -> Iterator[Any]:
    """Every UPDATE of jobs waits for this lock, behind its snapshot and before it locks a row."""
    made = (
        "CREATE FUNCTION wait_in_update() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END'",
        "CREATE TRIGGER wait_in_update BEFORE UPDATE ON jobqueue_jobs"
        " EXECUTE FUNCTION wait_in_update()",
    )
    with kit.store.write() as connection:
        for statement in made:
            connection.exec_driver_sql(statement)
    yield text("SELECT pg_advisory_xact_lock(7)")
    with kit.store.write() as connection:
        connection.exec_driver_sql("DROP FUNCTION wait_in_update CASCADE")


@pytest.mark.databases("postgres")  # On SQLite, who claims holds the database.
@pytest.mark.parametrize("way", ["one queue", "many queues"])
def test_a_job_that_changes_behind_the_snapshot_of_a_claim_is_left_to_the_next_claim(
    kit: StoreKit, second_store: Any, blocked: Any, wait_in_update: Any, way: str
) -> None:
    changes, other = kit.add_many(2)
    holder = kit.worker()

    def claim() -> list[int]:
        if way == "one queue":
            return ids(kit.take(holder))
        with kit.store.write() as connection:
            taken = kit.claims.claim_queues(
                connection, holder, {"default": START}, share=3, limit=9, free=9
            )
        return ids(taken["default"])

    with ThreadPoolExecutor(1) as pool, second_store().write() as connection:
        connection.execute(wait_in_update)
        claiming = pool.submit(claim)
        blocked()
        connection.execute(jobs.update().where(jobs.c.id == changes).values(timeout=5.0))
        connection.commit()
        assert claiming.result() == [other]
    (claimed,) = claim()
    assert (claimed, kit.row(changes).attempt) == (changes, 1)
