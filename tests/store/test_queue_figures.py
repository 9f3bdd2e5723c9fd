"""The figures of queues on the dashboard: those of the view, with bounds for what waits."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text

from jobqueue.new_jobs import ExtraColumns
from jobqueue.states import WAITING, State
from jobqueue.store import queue_figures
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind, queues
from jobqueue.store.stats import Monitor
from tests.store.conftest import StoreKit


def rows_of(kit: StoreKit) -> dict[str, dict[str, Any]]:
    return {row["queue"]: row for row in Monitor(kit.store).bounded_queues()}


def test_they_are_those_of_the_view(kit: StoreKit) -> None:
    # Those that wait come last: `put` claims from the same queue.
    for state in sorted(State, key=lambda each: each in WAITING):
        kit.put(state, queue="default" if state is State.SCHEDULED else "mail")
    kit.put(State.AVAILABLE, queue="keyed", extra=ExtraColumns(lane="a"))
    kit.put(State.AVAILABLE, queue="keyed")
    with kit.store.write() as connection:
        connection.execute(
            insert(queues).values(
                name="mail", max_running=3, rate_count=5, rate_period=60.0, max_pending=9, fair=1
            )
        )
    Pauses(kit.store).pause(PauseKind.QUEUE, "empty")
    view = text("SELECT * FROM jobqueue_queue_stats ORDER BY queue")
    with kit.store.read() as connection:
        exact = [dict(row) for row in connection.execute(view).mappings()]
    for row in exact:  # SQLite has no booleans.
        row.update(paused=bool(row["paused"]), fair=bool(row["fair"]))
    found = Monitor(kit.store).bounded_queues()
    ages = [
        (a.pop("oldest_available_seconds"), b.pop("oldest_available_seconds"))
        for a, b in zip(exact, found, strict=True)
    ]
    assert all((a is None) == (b is None) for a, b in ages)
    more = {"available_more": False, "scheduled_more": False}
    assert found == [row | more for row in exact]
    assert len(found) == 4


def test_numbers_of_jobs_that_wait_are_bounds_where_many_do(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, bound in {"EACH": 2, "BUDGET": 4, "AVAILABLE_MAX": 4, "SCHEDULED_MAX": 3}.items():
        monkeypatch.setattr(queue_figures, name, bound)
    for _ in range(6):
        kit.put(State.AVAILABLE, queue="deep")
    kit.put(State.AVAILABLE, queue="few")
    kit.put(State.AVAILABLE, queue="few")
    rows = rows_of(kit)
    assert (rows["deep"]["available"], rows["deep"]["available_more"]) == (4, True)
    assert (rows["few"]["available"], rows["few"]["available_more"]) == (2, False)
    for _ in range(5):
        kit.put(State.SCHEDULED, queue="few")
    rows = rows_of(kit)
    assert rows["few"]["scheduled"] >= 3 and rows["few"]["scheduled_more"]
    assert rows["deep"]["scheduled_more"]  # What was not counted may be there.


def test_the_oldest_job_is_that_of_every_priority(kit: StoreKit) -> None:
    first, last = kit.put(State.AVAILABLE, priority=9), kit.put(State.AVAILABLE)
    present = Monitor(kit.store).present()
    kit.change(first, run_at=present - timedelta(hours=2))
    kit.change(last, run_at=present - timedelta(hours=1))
    (row,) = rows_of(kit).values()
    assert 7200 <= row["oldest_available_seconds"] < 7300
