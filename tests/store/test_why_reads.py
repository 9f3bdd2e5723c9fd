"""How many jobs in front of one `why` reads, and what it says where it has not read them all."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from jobqueue.store import why as store_why
from jobqueue.store import why_facts
from jobqueue.store.clock import after
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind, counters
from jobqueue.store.sql import why as sql_why
from tests.store.reads import Reads
from tests.store.test_why import WhyKit
from tests.store.test_why import why as why

COUNTED, LOOKED_AT = 20, 100
MANY = 5_000


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sql_why, store_why):
        monkeypatch.setattr(module, "COUNTED_MAX", COUNTED)
        monkeypatch.setattr(module, "LOOKED_AT_MAX", LOOKED_AT)
    made = sql_why.WhyStatements()
    monkeypatch.setattr(why_facts, "why_statements", lambda: made)


@pytest.fixture
def pause(why: WhyKit) -> None:
    Pauses(why.kit.store).pause(PauseKind.TASK, "send")


@contextmanager
def few_reads(why: WhyKit, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is asked within reads a small part of the jobs."""
    reads = Reads(why.kit.store)

    @contextmanager
    def read() -> Iterator[Connection]:
        with reads.write() as connection:
            yield connection

    with monkeypatch.context() as watched:
        watched.setattr(why.kit.store, "read", read)
        yield
    assert reads.most < MANY // 2


def of_full_key(why: WhyKit, count: int, *, strict: bool = False) -> list[int]:
    """Jobs of a key of which another one runs, so that it has no room for them."""
    why.add("k", limit=1, strict=strict)
    assert len(why.claim(limit=1)) == 1
    return why.add("k", count, limit=1, strict=strict)


def test_behind_paused_jobs_it_reads_a_bounded_number_of_them(
    why: WhyKit, pause: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    why.add(count=MANY, task="send")
    (mine,) = why.add()
    with few_reads(why, monkeypatch):
        said = why.of(mine)
    assert said.code == "behind"
    assert said.sentence == "behind more than 100 jobs, of which the first 100 are held back"


@pytest.mark.parametrize("count", [LOOKED_AT, LOOKED_AT + 1])
def test_a_job_is_the_next_if_all_that_are_in_front_are_paused_and_were_read(
    why: WhyKit, pause: None, count: int
) -> None:
    why.add(count=count, task="send")
    (mine,) = why.add()
    assert why.of(mine).code == ("claimable" if count == LOOKED_AT else "behind")


def test_of_jobs_among_paused_ones_it_counts_those_that_it_reads(why: WhyKit, pause: None) -> None:
    why.add(count=7)
    why.add(count=LOOKED_AT, task="send")
    (mine,) = why.add()
    assert why.says(mine) == "behind at least 7 jobs"
    why.execute(
        insert(counters).values(minute=after(-1000.0), queue="default", task="add", succeeded=1)
    )
    assert why.says(mine).startswith("behind at least 7 jobs, more than 1")
    why.add(count=COUNTED, priority=-1)
    assert why.says(mine).startswith("behind more than 20 jobs, more than ")


@pytest.mark.parametrize("more", [0, LOOKED_AT])
def test_as_many_jobs_as_are_counted_at_most_are_counted(
    why: WhyKit, pause: None, more: int
) -> None:
    why.add(count=COUNTED)
    why.add(count=more, task="send") if more else None
    (mine,) = why.add()
    assert why.says(mine) == f"behind {'at least ' if more else ''}20 jobs"
    pace = {"queue": "default", "task": "add", "succeeded": 1000}
    why.execute(insert(counters).values(minute=after(-1000.0), **pace))
    assert (" jobs, more than " in why.says(mine)) == bool(more)


@pytest.mark.parametrize(("count", "said"), [(COUNTED, "20"), (COUNTED + 1, "more than 20")])
def test_other_keys_are_counted_up_to_the_same_bound(why: WhyKit, count: int, said: str) -> None:
    for key in range(count):
        why.add(f"k{key}")
    why.kit.make_due(*range(1, count + 1))
    (mine,) = why.add("mine")
    why.lanes.sweep()
    assert why.says(mine) == f"behind {said} other keys"


def test_behind_a_full_key_it_reads_a_bounded_number_of_its_jobs(
    why: WhyKit, pause: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = of_full_key(why, MANY)[-1]
    with few_reads(why, monkeypatch):
        assert why.of(mine).code == "lane_full"


def test_behind_jobs_of_a_key_in_order_it_reads_a_bounded_number_of_them(
    why: WhyKit, pause: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = of_full_key(why, MANY, strict=True)[-1]
    with few_reads(why, monkeypatch):
        assert why.of(mine).code == "lane_full"


def test_a_job_with_more_places_than_those_before_it_reads_a_bounded_number_of_them(
    why: WhyKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_full_key(why, MANY)
    (mine,) = why.add("k", limit=2)
    with few_reads(why, monkeypatch):
        assert why.says(mine) == "behind more than 20 jobs of its key"


def test_behind_paused_jobs_of_its_key_it_reads_a_bounded_number_of_them(
    why: WhyKit, pause: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    why.add("k", MANY, task="send")
    (mine,) = why.add("k")
    with few_reads(why, monkeypatch):
        said = why.says(mine)
    assert said == "behind more than 100 jobs of its key, of which the first 100 are held back"


def test_in_a_limited_queue_both_kinds_of_jobs_in_front_are_counted(
    why: WhyKit, pause: None
) -> None:
    why.add(count=LOOKED_AT + 1, task="send")
    why.add("k", 12)
    (mine,) = why.add("k")
    why.switch(max_running=5)
    assert why.says(mine) == "behind at least 12 jobs"


def test_while_nothing_is_paused_it_looks_for_no_paused_job_of_a_key_in_order(
    why: WhyKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = of_full_key(why, MANY, strict=True)[-1]
    monkeypatch.delattr(why_facts.why_statements(), "paused_ahead")
    assert why.of(mine).code == "lane_full"
