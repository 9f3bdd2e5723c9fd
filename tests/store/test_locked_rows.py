"""Beside what other clients of PostgreSQL have locked: upkeep skips rows, and a worker waits for half a second at most."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from jobqueue.states import State
from jobqueue.store.claims import WorkerRef
from jobqueue.store.clock import after
from jobqueue.store.database import Store
from tests.store.conftest import StoreKit

pytestmark = pytest.mark.databases("postgres")


def due(kit: StoreKit) -> list[int]:
    ids = kit.add_many(2, delay=3600.0)
    kit.make_due(*ids)
    return ids


def expired(kit: StoreKit) -> list[int]:
    ids = kit.add_many(2)
    kit.change(*ids, expires_at=after(-1.0))
    return ids


def ended(kit: StoreKit) -> list[int]:
    return [kit.put(State.SUCCEEDED) for _ in range(2)]


def lost(kit: StoreKit) -> list[int]:
    holder = kit.worker()
    ids = [kit.put(State.RUNNING, holder) for _ in range(2)]
    kit.leases.deregister(holder.id)
    return ids


@pytest.mark.parametrize(
    ("make", "upkeep"),
    [
        (due, lambda kit: kit.maintenance.promote()),
        (expired, lambda kit: kit.maintenance.expire()),
        (ended, lambda kit: kit.maintenance.prune(State.SUCCEEDED, 0.0)),
        (lost, lambda kit: kit.leases.reap()),
    ],
    ids=["promote", "expire", "prune", "reap"],
)
def test_upkeep_leaves_a_locked_row_to_its_next_round(
    kit: StoreKit,
    make: Callable[[StoreKit], list[int]],
    upkeep: Callable[[StoreKit], Any],
) -> None:
    locked, free = make(kit)
    before = kit.state(locked)
    with kit.store.engine.begin() as connection:
        row = text("SELECT 1 FROM jobqueue_jobs WHERE id = :id FOR UPDATE")
        connection.execute(row, {"id": locked})
        done = upkeep(kit)
        assert (done if isinstance(done, int) else len(done)) == 1
    assert kit.state(locked) is before
    found = kit.jobs.get(free)
    assert found is None or found.state is not before


def test_a_worker_gives_up_what_waits_for_a_lock(
    kit: StoreKit, second_store: Callable[..., Store], together: Any
) -> None:
    kit.add()
    holder = kit.worker()
    claim = kit.take_one(holder)
    # What waited without a limit would end by another error.
    own = StoreKit(second_store(statement_timeout="30s"))

    def read(poll: Callable[..., Any], *given: Any) -> None:
        with own.store.read() as connection:
            poll(connection, *given)

    calls: dict[str, Callable[[], Any]] = {
        "cancel_requests": lambda: own.leases.cancel_requests(holder.id),
        "save_progress": lambda: own.completion.save_progress(
            WorkerRef(*holder), [(claim.id, claim.fence, 0.5, "half")]
        ),
        "mark_started": lambda: own.claims.mark_started(claim),
        "poll": lambda: read(own.leases.poll, holder.id, None, None),
        "poll_due": lambda: read(own.leases.poll_due),
        "note_stop": lambda: own.leases.note_stop(holder.id),
        "deregister": lambda: own.leases.deregister(holder.id),
        "promote": own.maintenance.promote,
        "pass_on_keys": own.maintenance.pass_on_keys,
    }
    with kit.store.engine.begin() as connection:
        tables = "jobqueue_jobs, jobqueue_workers"
        connection.execute(text(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"))
        said = together(*calls.values())
    assert [
        (name, error)
        for name, error in zip(calls, said, strict=True)
        if not (isinstance(error, OperationalError) and "lock timeout" in str(error))
    ] == []
