"""How many jobs are in front of one, and the time that they take, by `why`."""

import pytest
from sqlalchemy import insert, update

from jobqueue.store.clock import after, this_minute
from jobqueue.store.schema import counters, lanes, queues
from tests.store.test_why import WhyKit
from tests.store.test_why import why as why


def test_behind_others_it_counts_them_and_the_time_that_they_take(why: WhyKit) -> None:
    ids = why.add(count=7)
    assert why.says(ids[3]) == "behind 3 jobs"
    assert why.says(ids[1]) == "behind 1 job"
    ended = insert(counters).values(minute=this_minute(), queue="default", task="add", succeeded=9)
    why.execute(ended)
    why.execute(ended.values(kind=2, minute=after(-1800.0)))
    why.execute(ended.values(kind=1, succeeded=10**6))
    why.execute(ended.values(kind=2, minute=after(-7200.0), succeeded=10**6))
    why.execute(ended.values(queue="other", succeeded=10**6))
    assert why.says(ids[6]) == "behind 6 jobs, about 10 min at the last hour's pace"


def test_those_in_front_take_the_longer_time_of_the_queues_rate_and_the_last_hours_pace(
    why: WhyKit,
) -> None:
    *_, last = why.add(count=6)
    why.execute(
        insert(counters).values(minute=after(-1000.0), queue="default", task="add", succeeded=1000)
    )
    why.switch(rate_count=1, rate_period=7200.0)
    assert why.says(last) == "behind 5 jobs, about 10 h at the queue's rate of 1/2h"
    assert why.of(last).advice == "wait, or raise the rate: jobqueue queues rate default N/minute"
    why.execute(update(queues).values(rate_burst=3))
    assert why.says(last) == "behind 5 jobs, about 6 h at the queue's rate of 1/2h"
    why.execute(update(queues).values(rate_burst=6))
    assert why.says(last) == "behind 5 jobs, about 5 s at the last hour's pace"
    assert why.of(last).advice == "wait, or start more workers"
    why.execute(update(queues).values(rate_burst=None))
    assert len(why.claim()) == 1
    assert why.says(last) == (
        "rate of queue default: next start in 2 h; "
        "this job is behind 4 jobs, about 10 h at the queue's rate of 1/2h"
    )
    why.execute(counters.delete())
    assert why.says(last).endswith("about 10 h at the queue's rate of 1/2h")


def test_other_keys_in_front_make_the_time_a_least_one(why: WhyKit) -> None:
    why.kit.change(*why.add("other"), run_at=after(-60.0))
    _, last = why.add(count=2)
    why.lanes.sweep()
    why.switch(rate_count=1, rate_period=7200.0)  # They start now, in 2 h and in 4 h.
    assert why.says(last) == (
        "behind 1 job and 1 other key, more than 2 h at the queue's rate of 1/2h"
    )


def test_jobs_of_other_queues_priorities_and_times_are_not_in_front(why: WhyKit) -> None:
    late, (mine,) = why.kit.add(priority=0), why.add(priority=0)
    why.kit.change(late, run_at=after(-1.0))
    why.kit.change(mine, run_at=after(-60.0))
    why.add(priority=5), why.add(queue="other"), why.add("k")
    assert why.of(mine).code == "claimable"
    why.add(priority=-5)
    assert why.says(mine) == "behind 1 job"


def test_many_in_front_are_counted_up_to_a_bound(
    why: WhyKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = why.add(count=10_003)[-1]
    assert why.says(last) == "behind more than 10,000 jobs"
    why.execute(
        insert(counters).values(minute=after(-1000.0), queue="default", task="add", succeeded=1000)
    )
    assert why.says(last).endswith("jobs, more than 3 h at the last hour's pace") or why.says(
        last
    ).endswith("jobs, more than 2.8 h at the last hour's pace")


def test_behind_the_jobs_of_its_key_and_other_keys(why: WhyKit) -> None:
    in_order = [*why.add("a"), *why.add("b"), *why.add("c", 2)]
    for seconds, id_ in enumerate(in_order, -10):  # On SQLite they may be of one millisecond.
        why.kit.change(id_, run_at=after(seconds))
    first, second = in_order[2:]
    why.lanes.sweep()
    assert why.says(second) == "behind 1 job of its key and 2 other keys"
    assert why.says(first) == "behind 2 other keys"


def test_a_key_that_its_own_limit_holds_back_is_not_in_front(why: WhyKit) -> None:
    why.add("held", limit=0)
    (of_key,), (plain,) = why.add("mine"), why.add()
    why.lanes.sweep()
    assert (why.of(of_key).code, why.of(plain).code) == ("claimable", "claimable")
    why.add("held")  # It is behind both.
    why.switch(max_running=5)  # Now jobs without a key are in one order with those of keys.
    assert why.says(plain) == "behind 1 other key"
    why.kit.change(of_key, run_at=after(60.0))
    why.execute(update(lanes).where(lanes.c.name == "mine").values(due_at=after(60.0)))
    assert why.of(plain).code == "claimable"
