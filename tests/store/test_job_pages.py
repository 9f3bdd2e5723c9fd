"""Pages of jobs: each begins after the last one, misses none, and looks through a bounded part."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event

from jobqueue.errors import InvalidOption
from jobqueue.records import JobFilter
from jobqueue.states import WAITING, State
from jobqueue.store import bulk_preview, job_pages
from jobqueue.store.job_pages import JobPages, is_counted
from tests.store.conftest import StoreKit


@contextmanager
def lower_bounds(kit: StoreKit) -> Iterator[list[int]]:
    """How many lower bounds each statement has that looks for jobs of a task in an order.

    Of two SQLite takes the first, and reads all that is below the second.
    """
    found: list[int] = []

    def see(*given: Any) -> None:
        if ".task =" in given[2] and "ORDER BY" in given[2]:
            found.append(len(re.findall(r"\.(?:id|finished_at) (?:>|IS NOT)", given[2])))

    event.listen(kit.store.engine, "before_cursor_execute", see)
    yield found
    event.remove(kit.store.engine, "before_cursor_execute", see)


def walk(pages: JobPages, wanted: JobFilter, size: int) -> list[int]:
    """The ids of all pages, in their order."""
    ids: list[int] = []
    after: str | None = None
    while True:
        page = pages.page(wanted, after, size)
        ids += [job.id for job in page.jobs]
        if page.after is None:
            return ids
        after = page.after


@pytest.mark.parametrize("state", [None, *State])
def test_the_pages_of_each_state_hold_each_job_once(kit: StoreKit, state: State | None) -> None:
    # Those that wait come last: `put` claims from the same queue.
    order = sorted(State, key=lambda each: each in WAITING)
    made = {each: [kit.put(each, queue="q") for _ in range(7)] for each in order}
    wanted = [id_ for each in State if state in (None, each) for id_ in made[each]]
    found = walk(JobPages(kit.jobs), JobFilter(state=state, queue="q"), 3)
    assert sorted(found) == sorted(wanted)
    if state is None or state in (State.SCHEDULED, State.AVAILABLE, State.RUNNING):
        assert found == sorted(found, reverse=True)
    assert JobPages(kit.jobs).count(JobFilter(state=state)) == len(wanted)


def test_jobs_that_ended_in_one_instant_are_all_on_some_page(kit: StoreKit) -> None:
    ids = [kit.put(State.FAILED) for _ in range(9)]
    kit.change(*ids, finished_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert walk(JobPages(kit.jobs), JobFilter(state=State.FAILED), 2) == ids[::-1]


def test_a_window_ends_amid_jobs_that_ended_in_one_instant(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_pages, "WINDOW", 3)
    ids = [kit.put(State.FAILED, task="t") for _ in range(9)]
    kit.change(*ids, finished_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert walk(JobPages(kit.jobs), JobFilter(state=State.FAILED, task="t"), 20) == ids[::-1]


@pytest.mark.parametrize("state", [None, State.AVAILABLE, State.FAILED])
def test_what_no_index_serves_is_looked_for_in_a_bounded_part(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch, state: State | None
) -> None:
    monkeypatch.setattr(job_pages, "WINDOW", 4)
    monkeypatch.setattr(job_pages, "FEW", 2)
    rare = kit.put(state or State.AVAILABLE, task="rare")
    for _ in range(6):
        kit.put(state or State.AVAILABLE, task="common")
    pages, wanted = JobPages(kit.jobs), JobFilter(state=state, task="rare")
    with lower_bounds(kit) as bounds:
        first = pages.page(wanted)
    assert bounds == [1]
    assert (first.jobs, first.window) == ([], True)
    second = pages.page(wanted, first.after)
    assert [job.id for job in second.jobs] == [rare]


def test_few_jobs_of_a_live_state_are_found_however_old_they_are(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_pages, "WINDOW", 2)
    old = [kit.put(state, task="t") for state in (State.SCHEDULED, State.AVAILABLE, State.RUNNING)]
    for _ in range(5):
        kit.put(State.SUCCEEDED, task="t")
    pages = JobPages(kit.jobs)
    for id_, state in zip(old, (State.SCHEDULED, State.AVAILABLE, State.RUNNING), strict=True):
        page = pages.page(JobFilter(state=state, task="t"))
        assert ([job.id for job in page.jobs], page.window) == ([id_], False)


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "²"])
@pytest.mark.parametrize("state", [None, State.FAILED])
def test_a_place_that_is_none_is_refused(kit: StoreKit, after: str, state: State | None) -> None:
    with pytest.raises(InvalidOption):
        JobPages(kit.jobs).page(JobFilter(state=state), after)


def test_a_count_stops_at_its_bound(kit: StoreKit) -> None:
    for _ in range(4):
        kit.put(State.AVAILABLE)
    pages = JobPages(kit.jobs)
    assert [pages.count(JobFilter(), most) for most in (2, 3, 4, 5)] == [3, 4, 4, 4]
    assert is_counted(JobFilter(state=State.FAILED)) and not is_counted(JobFilter(task="t"))


@pytest.mark.parametrize("state", [State.AVAILABLE, State.FAILED])
def test_a_count_of_a_page_says_whether_there_are_more(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    monkeypatch.setattr(job_pages, "STEP", 2)
    monkeypatch.setattr(job_pages, "LOOK_TIME", 60.0)
    for _ in range(5):
        kit.put(state)
    pages = JobPages(kit.jobs)
    found = [pages.count_soon(JobFilter(state=state), most) for most in (3, 4, 5, 6)]
    assert found == [(3, False), (4, False), (5, True), (5, True)]
    monkeypatch.setattr(job_pages, "LOOK_TIME", -1.0)
    soon = pages.count_soon(JobFilter(state=state))
    assert soon == ((2, False) if state is State.FAILED else (5, True))


def test_a_page_of_ended_jobs_looks_no_further_when_its_time_is_over(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_pages, "STEP", 2)
    monkeypatch.setattr(job_pages, "LOOK_TIME", -1.0)
    rare = [kit.put(State.FAILED, task="rare") for _ in range(2)]
    for _ in range(6):
        kit.put(State.FAILED, task="common")
    pages, wanted = JobPages(kit.jobs), JobFilter(state=State.FAILED, task="rare")
    first = pages.page(wanted)
    assert (first.jobs, first.window) == ([], True)
    assert walk(pages, wanted, 1) == rare[::-1]


def test_what_a_bulk_verb_would_change_is_looked_for_in_a_bounded_part(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [kit.put(State.FAILED, task=task) for task in ("rare", *["common"] * 5)]
    other = kit.put(State.SUCCEEDED, task="rare")
    states = (State.FAILED, State.SCHEDULED)

    def look(**wanted: Any) -> tuple[int, list[int], bool, int]:
        found = bulk_preview.preview(kit.jobs, JobFilter(**wanted), states, 2)
        return found.number, [job.id for job in found.sample], found.whole, found.left_out

    assert look(task="common") == (5, ids[:3:-1], True, 0)
    assert look(ids=(ids[0], other)) == (1, ids[:1], True, 1)
    monkeypatch.setattr(bulk_preview, "SCANNED_MAX", 6)
    assert look(task="common") == (3, ids[:3:-1], False, 0)
    assert look(task="rare") == (0, [], False, 0)
    monkeypatch.setattr(bulk_preview, "COUNTED_MAX", 4)
    assert look() == (4, ids[:3:-1], False, 0)


def test_each_batch_of_a_bulk_verb_begins_after_the_last_one(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobqueue.store.jobs.BULK", 2)
    ids = [kit.put(State.AVAILABLE, task="t") for _ in range(5)]
    with lower_bounds(kit) as bounds:
        assert kit.jobs.cancel(JobFilter(task="t"))[0] == ids
    assert bounds == [1, 1, 1]
