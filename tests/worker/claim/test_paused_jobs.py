"""Paused tasks and tags in a worker: it passes their jobs over in all queues, and idles where there is nothing else."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from jobqueue import JobQueue
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind, queues
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.store import paused_search
from jobqueue.store.paused import before
from jobqueue.worker.claim import cursors
from jobqueue.worker.claim.cursors import WorkHint
from tests.worker.conftest import LONG_AGO, Stepped


@pytest.mark.parametrize("pause", [{"task": "held"}, {"tag": "bulk"}], ids=str)
def test_a_worker_passes_over_what_is_paused(
    jobs: JobQueue, stepped: Stepped, pause: dict[str, Any]
) -> None:
    @jobs.task(tags=["bulk"])
    def held() -> None: ...

    @jobs.task
    def free() -> None: ...

    jobs.pause(**pause)
    of_queues = {queue: held.options(queue=queue).enqueue().id for queue in "abc"}
    free_ids = [free.options(queue=queue).enqueue().id for queue in "abc"]
    worker = stepped(concurrency=20)
    assert sorted(claim.id for claim in worker.claim()) == free_ids
    worker.execute()
    worker.complete()
    assert worker.claim() == []
    worker.cursors._rescanned_at = LONG_AGO
    assert not worker.planner.refresh()  # Nothing to open a transaction for.
    assert worker.planner.delay() > 0.5
    assert worker.cursors._behind_paused.next_at == float("inf")  # All was seen.
    jobs.resume(**pause)
    assert sorted(claim.id for claim in worker.claim()) == sorted(of_queues.values())


# Many of them


PAST = datetime(2020, 1, 1, tzinfo=UTC)
AT_ONCE = 3


@pytest.fixture
def behind(jobs: JobQueue, stepped: Stepped, monkeypatch: pytest.MonkeyPatch) -> "BehindPaused":
    for name in ("ROWS", "ROWS_MIN"):
        monkeypatch.setattr(paused_search, name, AT_ONCE)
    return BehindPaused(jobs, stepped(concurrency=20))


class BehindPaused:
    """A worker that looks at three jobs at once, with ten paused ones in front of all others."""

    def __init__(self, jobs: JobQueue, worker: Any) -> None:
        @jobs.task(name="held", tags=["bulk"])
        def held() -> None: ...

        @jobs.task(name="free")
        def free() -> None: ...

        self.jobs, self.worker = jobs, worker
        self.held, self.free = held, free
        self.search = worker.cursors._behind_paused
        self.actions = 0
        jobs.pause(task="held")
        self.paused = [job.id for job in jobs.enqueue_many([held.call()] * 10)]

    def claimed(self) -> list[int]:
        """What one round claims; it runs then."""
        got = [claim.id for claim in self.worker.claim()]
        self.worker.execute()
        self.worker.complete()
        return got

    def rounds(self) -> int:
        """How many rounds it takes until a worker that is idle rests."""
        count = 1
        while count < 20 and not self.claimed() and self.search.next_at <= time.monotonic():
            count += 1
        return count

    def until_it_rests(self) -> list[int]:
        """What it claims in rounds that follow without a pause."""
        got = self.claimed()
        for _ in range(20):
            if self.search.next_at > time.monotonic():
                return got
            got += self.claimed()
        raise AssertionError("it goes on for ever")

    def act(self) -> None:
        """An operator's action that changes nothing here."""
        self.actions += 1
        Pauses(self.worker.store, "ada").pause(PauseKind.TAG, f"x{self.actions}")

    def put_in_front(self) -> int:
        id_: int = self.free.enqueue().id
        self.worker.change(id_, run_at=PAST)
        return id_

    def ends(self) -> list[Any]:
        """A list to which each claim from now on adds the places up to which it reads."""
        seen: list[Any] = []
        claim_queues = self.worker.cursors._claims.claim_queues

        def see(connection: Any, worker: Any, cursors: Any, ends: Any, **most: Any) -> Any:
            seen.append(ends)
            return claim_queues(connection, worker, cursors, ends, **most)

        self.worker.cursors._claims.claim_queues = see
        return seen


def test_a_worker_remembers_how_far_it_has_passed_over_paused_jobs(behind: BehindPaused) -> None:
    first = behind.free.enqueue()
    assert behind.rounds() == 4  # Each passes over three.
    assert first.state == "succeeded"
    behind.search._began_at = float("inf")
    assert behind.claimed() == []
    later = behind.free.enqueue().id
    assert behind.claimed() == [later]
    urgent, other = behind.free.options(priority=-1), behind.free.options(queue="other")
    assert behind.claimed() == []
    found = [urgent.enqueue().id, other.enqueue().id]
    assert sorted(behind.claimed()) == found


def test_of_each_of_many_queues_some_jobs_are_passed_over(behind: BehindPaused) -> None:
    """Though in all of them together these are more than one step passes over."""
    found = []
    for queue in "abcde":
        held, free = (task.options(queue=queue) for task in (behind.held, behind.free))
        found += [job.id for job in behind.jobs.enqueue_many([*[held.call()] * 2, free.call()])[2:]]
    assert sorted(behind.claimed()) == found


def test_a_job_that_comes_in_front_of_the_place_is_found_in_time(
    behind: BehindPaused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paused_search, "INTERVAL", 600.0)  # A busy machine may take a second.
    behind.rounds()
    behind.search._began_at = time.monotonic()
    front = behind.put_in_front()
    assert behind.claimed() == []
    assert behind.search.next_at <= time.monotonic() + paused_search.INTERVAL
    behind.search._began_at = LONG_AGO
    assert behind.claimed() == [front]
    assert behind.claimed() == []  # From there on it has to be looked for anew.
    assert behind.rounds() == 3


def test_a_second_search_without_a_reason_rests_after_each_step(
    behind: BehindPaused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For nine times as long as the step took, or it would take more than a tenth of the time."""
    monkeypatch.setattr(paused_search, "INTERVAL", 600.0)  # A busy machine may take a second.
    behind.rounds()
    monkeypatch.setattr(paused_search, "SHARE", 1e-9)
    behind.search._began_at = LONG_AGO
    behind.search._urgent = {("another", 0)}  # It waits for its turn, and hurries no other.
    behind.claimed()
    come_to = dict(behind.search._again)
    assert come_to and behind.search.next_at > time.monotonic() + 600
    behind.claimed()
    assert behind.search._again == come_to


@pytest.mark.parametrize(
    "event",
    [
        *("an operator's action", "a resume"),
        *("the end of the newest worker", "the end of an older worker", "another worker's start"),
    ],
)
def test_what_may_have_put_jobs_in_front_makes_it_search_again_at_once(
    behind: BehindPaused, stepped: Stepped, event: str
) -> None:
    other = stepped()
    if event == "the end of an older worker":
        stepped()
    if event == "a resume":
        behind.jobs.pause(task="free")
    behind.rounds()
    behind.search._began_at = float("inf")
    front = behind.put_in_front()
    behind.worker.change(front, run_at=PAST.replace(year=2100))  # Behind seven of the ten.
    behind.worker.change(*behind.paused[7:], run_at=PAST.replace(year=2101))
    behind.search._places = {("default", 0): (0, PAST.replace(year=2102), 0)}
    if event == "an operator's action":
        behind.act()
    elif "worker" in event:
        other.heartbeat._leases.deregister(other.inflight.lease.worker.id)
        if event == "another worker's start":  # Before the next look: there are as many as before.
            stepped()
    else:
        behind.jobs.resume(task="free")
    assert front in behind.until_it_rests()


def test_a_queue_that_has_become_empty_does_not_hold_up_the_second_search(
    behind: BehindPaused,
) -> None:
    gone = behind.jobs.enqueue_many([behind.held.options(queue="gone").call()] * 10)
    behind.rounds()
    assert {queue for queue, _ in behind.search._places} == {"default", "gone"}
    behind.jobs.delete(*(job.id for job in gone))
    behind.act()
    assert behind.until_it_rests() == []
    front = behind.put_in_front()
    behind.search._began_at = behind.search._again_at = LONG_AGO
    assert behind.claimed() == [front]


def test_a_priority_that_was_empty_for_a_while_is_searched_again_for_a_new_reason(
    behind: BehindPaused,
) -> None:
    behind.held.options(priority=1).enqueue()  # So that its queue has jobs all the time.
    behind.rounds()
    behind.search._began_at = float("inf")
    for _ in range(2):  # The second one comes while the search for the first is under way.
        behind.act()
        behind.claimed()
    assert ("default", 0) in behind.search._again
    behind.jobs.delete(*behind.paused)
    behind.claimed()
    assert ("default", 0) not in behind.search._places
    for count in (1, 10):
        behind.jobs.enqueue_many([behind.held.call()] * count)
        assert behind.until_it_rests() == []
    front = behind.put_in_front()
    behind.act()
    assert behind.until_it_rests() == [front]


def test_a_job_behind_more_paused_queues_than_a_rescan_finds_is_found_at_once(
    behind: BehindPaused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursors, "QUEUES_MAX", 2)
    queues = [behind.held.options(queue=f"e{n}").call() for n in range(6)]
    behind.jobs.enqueue_many([*queues, behind.free.options(queue="last").call()])
    rounds = 1
    while not behind.worker.claim(sweep=rounds == 1):
        assert behind.worker.cursors.rescan_in() <= 0
        rounds += 1
    assert rounds == 4
    behind.worker.step()
    turns = (behind.worker.claim(sweep=False) == [] for _ in range(20))
    # It rests where the queues end.
    assert any(is_idle and behind.worker.cursors.rescan_in() > 0 for is_idle in turns)


@pytest.mark.databases("postgres")  # The other has one writer.
def test_a_job_that_another_transaction_locks_does_not_hold_up_those_of_other_priorities(
    behind: BehindPaused,
) -> None:
    behind.rounds()
    locked, other = behind.free.options(priority=-1).enqueue().id, behind.free.enqueue().id
    row = select(jobs_table).where(jobs_table.c.id == locked).with_for_update()
    with behind.worker.store.engine.connect() as connection:
        connection.execute(row)
        assert behind.claimed() == []
        assert behind.worker.cursors.hint is WorkHint.MAYBE  # Nothing to look again for at once.
        assert behind.claimed() == [other]
    another = behind.free.enqueue().id
    assert [behind.claimed(), behind.claimed()] == [[locked], [another]]


def test_the_second_search_comes_to_its_end_although_actions_follow_each_other(
    behind: BehindPaused,
) -> None:
    behind.rounds()
    front = behind.put_in_front()
    behind.worker.change(*behind.paused[:8], run_at=PAST.replace(year=2019))
    got: list[int] = []
    for _ in range(4):
        behind.act()
        got += behind.claimed()
    assert got == [front]
    first = behind.put_in_front()  # Where the search has been already.
    behind.worker.change(first, run_at=PAST.replace(year=2018))
    behind.act()
    assert behind.until_it_rests() == [first]


def test_a_claim_reads_no_further_than_the_look_before_it(behind: BehindPaused) -> None:
    front, last = behind.put_in_front(), behind.free.enqueue().id
    seen = behind.ends()
    assert behind.claimed() == [front]
    (end,) = seen[0].values()
    assert behind.paused[AT_ONCE - 2] <= end[2] < behind.paused[3 * AT_ONCE - 2]
    assert behind.worker.cursors.rescan_in() <= 0  # It goes on at once.
    while behind.worker.cursors.rescan_in() <= 0:
        behind.claimed()
    assert behind.jobs.get(last).state == "succeeded"


def test_a_claim_goes_on_through_all_priorities_that_do_not_begin_with_paused_jobs(
    behind: BehindPaused,
) -> None:
    behind.rounds()
    jobs = [behind.free.options(priority=priority).enqueue().id for priority in (-3, -2, -1, 0)]
    assert behind.claimed() == jobs[:3]
    assert behind.claimed() == jobs[3:]


def test_a_claim_reads_into_no_priority_that_begins_with_paused_jobs(behind: BehindPaused) -> None:
    """Not even into one in which a job behind them was found."""
    behind.jobs.enqueue_many([behind.held.options(priority=1).call()] * 4)
    behind.rounds()
    urgent, found = (behind.free.options(priority=priority).enqueue().id for priority in (-1, 0))
    seen = behind.ends()
    assert behind.claimed() == [urgent]
    assert seen == [{"default": before(("default", 0))}]
    assert behind.claimed() == [found]


@pytest.mark.parametrize("columns", [{"paused_at": PAST}, {"max_running": 0}], ids=str)
def test_a_worker_does_not_go_into_a_closed_queue_while_a_task_is_paused(
    behind: BehindPaused, columns: dict[str, Any]
) -> None:
    with behind.worker.store.write() as connection:
        connection.execute(queues.insert().values(name="mail", **columns))
    behind.free.options(queue="mail").enqueue()
    assert behind.until_it_rests() == []
    behind.worker.cursors._rescanned_at = LONG_AGO
    assert not behind.worker.planner.refresh()  # Nothing to open a transaction for.


def test_nothing_is_remembered_once_nothing_is_paused(behind: BehindPaused) -> None:
    behind.rounds()
    assert behind.search.is_active
    behind.jobs.resume(task="held")
    assert sorted(behind.claimed()) == behind.paused
    behind.free.enqueue()
    behind.claimed()
    assert (behind.search.is_active, behind.search._places) == (False, {})
