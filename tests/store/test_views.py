"""The monitoring views, and the Monitor that reads them, on both databases."""

import json
from datetime import UTC, timedelta

import pytest
from sqlalchemy import insert, select, text, update

from jobqueue.records import (
    JobFilter,
    Unsuccessful,
)
from jobqueue.states import State
from jobqueue.store.clock import after
from jobqueue.store.compaction import MINUTES_KEPT
from jobqueue.store.schema import CounterKind, counters, jobs, workers
from tests.store.conftest import StoreScenario

COLUMNS = {
    "jobqueue_queue_stats": "queue scheduled available running succeeded failed cancelled paused oldest_available_seconds max_pending "
    "max_running rate_count rate_period rate_burst fair",
    "jobqueue_task_stats": "task succeeded failed cancelled errored_attempts avg_duration max_duration avg_wait max_wait",
    "jobqueue_worker_stats": "worker host pid queues concurrency running processed errored heartbeat_age_seconds started_at lease stopping_at",
    "jobqueue_throughput": "minute queue task succeeded failed cancelled errored_attempts avg_duration",
}


@pytest.mark.parametrize("view", COLUMNS)
def test_a_view_has_the_same_columns_in_the_same_order_on_both_databases(
    scenario: StoreScenario, view: str
) -> None:
    with scenario.store.read() as connection:
        assert (
            list(connection.execute(text(f"SELECT * FROM {view}")).keys()) == COLUMNS[view].split()
        )


# Queues


def test_live_states_are_counted_exactly_by_queue(scenario: StoreScenario) -> None:
    scenario.enqueue(5)
    scenario.enqueue(2, delay=60.0)
    scenario.enqueue(3, queue="mail")
    scenario.claim(2)

    row = scenario.queue()
    assert (row["scheduled"], row["available"], row["running"]) == (2, 3, 2)
    row = scenario.queue("mail")
    assert (row["scheduled"], row["available"], row["running"]) == (0, 3, 0)


def test_final_states_are_counted_by_what_happened_ever(scenario: StoreScenario) -> None:
    ids = scenario.enqueue(6)
    scenario.run(2)
    scenario.fail(1)
    scenario.jobs.cancel(JobFilter(ids=(ids[-1],)))
    scenario.jobs.retry(JobFilter(ids=(ids[0],)), succeeded=True)
    scenario.run(1)

    row = scenario.queue()
    assert (row["succeeded"], row["failed"], row["cancelled"], row["available"]) == (3, 1, 1, 2)


def test_counts_ever_survive_the_deletion_of_the_jobs_and_the_folding_of_the_counts(
    scenario: StoreScenario,
) -> None:
    scenario.enqueue(5)
    for _ in range(3):
        scenario.run(1)
    scenario.fail(2)
    before = scenario.queue(), scenario.task()

    for state in (State.SUCCEEDED, State.FAILED):
        assert scenario.maintenance.prune(state, -1.0) > 0
    assert scenario.jobs.count(JobFilter()) == 0
    assert (scenario.queue(), scenario.task()) == before
    for age in (120.0, MINUTES_KEPT + 60.0):  # Added up, then forgotten as a minute.
        minute = scenario.clock() - timedelta(seconds=age)
        scenario.execute(update(counters).values(minute=minute))
        assert scenario.maintenance.compact() > 0
        assert (scenario.queue(), scenario.task()) == before
    with scenario.store.read() as connection:
        assert connection.execute(select(counters.c.kind)).scalars().all() == [CounterKind.TOTAL]


def test_a_queue_that_is_paused_appears_though_nobody_has_seen_it(scenario: StoreScenario) -> None:
    assert scenario.view("jobqueue_queue_stats") == []
    assert scenario.pause("quiet")
    row = scenario.queue("quiet")
    assert row["paused"] == 1
    assert row["available"] == 0
    assert row["oldest_available_seconds"] is None


def test_pausing_and_resuming_say_whether_they_changed_anything(scenario: StoreScenario) -> None:
    scenario.enqueue()
    assert scenario.queue()["paused"] == 0
    assert [scenario.pause(), scenario.pause()] == [True, False]
    assert scenario.monitor.bounded_queues()[0]["paused"] is True
    assert scenario.claim(1) == []
    assert [scenario.resume(), scenario.resume()] == [True, False]
    assert scenario.monitor.bounded_queues()[0]["paused"] is False
    assert len(scenario.claim(1)) == 1
    assert [scenario.pause(), scenario.resume("never seen")] == [True, False]


def test_the_oldest_available_job_tells_its_age_whatever_its_priority(
    scenario: StoreScenario,
) -> None:
    scenario.enqueue(at=scenario.clock() - timedelta(seconds=90))
    scenario.enqueue(at=scenario.clock() - timedelta(seconds=30))
    scenario.execute(update(jobs).where(jobs.c.id == 1).values(priority=5))
    scenario.enqueue(queue="later", delay=60.0)

    assert 90 <= scenario.queue()["oldest_available_seconds"] < 120
    assert scenario.queue("later")["oldest_available_seconds"] is None


def test_an_age_is_never_negative(scenario: StoreScenario) -> None:
    scenario.enqueue()
    scenario.execute(update(jobs).values(run_at=after(3600.0)))
    assert scenario.queue()["oldest_available_seconds"] == 0
    scenario.register()
    scenario.execute(update(workers).values(heartbeat_at=after(3600.0)))
    assert scenario.view("jobqueue_worker_stats")[0]["heartbeat_age_seconds"] == 0


# Tasks


def test_a_tasks_times_are_over_all_handlers_that_ended(scenario: StoreScenario) -> None:
    scenario.enqueue(4)
    scenario.run(2, duration=1.0, wait=0.5)
    scenario.run(1, duration=4.0, wait=2.0)
    scenario.fail(1, duration=2.0)

    assert scenario.task() == {
        "task": "add",
        "succeeded": 3,
        "failed": 1,
        "cancelled": 0,
        "errored_attempts": 1,
        "avg_duration": 2.0,
        "max_duration": 4.0,
        "avg_wait": 0.75,
        "max_wait": 2.0,
    }


def test_a_task_that_never_ran_has_no_times(scenario: StoreScenario) -> None:
    scenario.jobs.cancel(JobFilter(ids=tuple(scenario.enqueue())))
    row = scenario.task()
    assert row["cancelled"] == 1
    assert {row[name] for name in row if name.startswith(("avg", "max"))} == {None}


def test_an_attempt_that_is_tried_again_is_errored_and_not_failed(scenario: StoreScenario) -> None:
    scenario.enqueue()
    (claim,) = scenario.claim(1)
    scenario.finish(Unsuccessful(claim, "errored", State.SCHEDULED, delay=60.0, duration=0.1))
    row = scenario.task()
    assert (row["errored_attempts"], row["failed"]) == (1, 0)


def test_a_waiting_task_appears_though_nothing_of_it_has_ended(scenario: StoreScenario) -> None:
    scenario.enqueue()
    scenario.run(1)
    scenario.enqueue(2, task="new")
    scenario.enqueue(1, task="new", delay=60.0)

    rows = {row["task"]: row for row in scenario.monitor.tasks()}
    assert list(rows) == ["add", "new"]
    assert (rows["add"]["waiting"], rows["add"]["succeeded"], rows["add"]["known_by"]) == (0, 1, 1)
    assert rows["new"] == {
        **dict.fromkeys(COLUMNS["jobqueue_task_stats"].split()),
        **dict.fromkeys(("succeeded", "failed", "cancelled", "errored_attempts"), 0),
        "task": "new",
        "waiting": 3,
        "waiting_more": False,
        "known_by": 0,
        "paused": False,
    }


def test_a_task_is_known_by_the_live_workers_that_name_it(scenario: StoreScenario) -> None:
    scenario.enqueue(task="add")
    scenario.enqueue(task="orphan")
    scenario.register("w1", ("add", "other"))
    scenario.register("w2", ("add",))
    dead = scenario.register("w3", ("add", "orphan"))
    scenario.execute(
        update(workers).where(workers.c.id == dead.id).values(heartbeat_at=after(-31.0))
    )

    assert {row["task"]: row["known_by"] for row in scenario.monitor.tasks()} == {
        "add": 2,
        "orphan": 0,
    }
    assert scenario.monitor.stats()["workers"] == 2


# Workers


def test_a_worker_tells_what_it_is_and_how_old_its_heartbeat_is(scenario: StoreScenario) -> None:
    holder = scenario.register("w1", queues=("mail", "default"))
    scenario.register("w2")
    scenario.leases.renew(holder.id, running=2, processed=10, errored=1, concurrency=8)
    scenario.execute(
        update(workers).where(workers.c.id == holder.id).values(heartbeat_at=after(-12.0))
    )

    viewed = {row["worker"]: row for row in scenario.view("jobqueue_worker_stats")}
    assert json.loads(viewed["w1"]["queues"]) == ["mail", "default"]
    first, second = scenario.monitor.workers()
    assert 12 <= first.pop("heartbeat_age_seconds") < 42
    assert abs(first.pop("started_at") - scenario.clock()) < timedelta(seconds=30)
    assert first == {
        "worker": "w1",
        "host": "host",
        "pid": 7,
        "queues": ["mail", "default"],
        "concurrency": 8,
        "running": 2,
        "processed": 10,
        "errored": 1,
        "lease": 30.0,
        "stopping_at": None,
    }
    scenario.leases.note_stop(holder.id)
    noted = scenario.monitor.workers()[0]["stopping_at"]
    assert abs(noted - scenario.clock()) < timedelta(seconds=30)
    viewed = {row["worker"]: row for row in scenario.view("jobqueue_worker_stats")}
    assert viewed["w1"]["stopping_at"] is not None and viewed["w2"]["stopping_at"] is None
    scenario.leases.note_stop(holder.id)
    assert scenario.monitor.workers_json()[0]["stopping_at"] == noted.isoformat()
    assert second["queues"] is None
    assert second["started_at"].tzinfo is UTC


# Throughput


def test_throughput_tells_each_minute_and_folding_changes_nothing(scenario: StoreScenario) -> None:
    scenario.enqueue(4)
    scenario.run(2, duration=1.0)
    scenario.run(1, duration=4.0)
    scenario.fail(1, duration=2.0)
    minute = scenario.clock().replace(second=0, microsecond=0) - timedelta(minutes=5)
    scenario.execute(update(counters).values(minute=minute))

    before = scenario.throughput()
    assert before == [
        {
            "minute": minute,
            "queue": "default",
            "task": "add",
            "succeeded": 3,
            "failed": 1,
            "cancelled": 0,
            "errored_attempts": 1,
            "avg_duration": 2.0,
        }
    ]
    assert scenario.maintenance.compact() == 3
    assert scenario.throughput() == before
    assert [row["succeeded"] for row in scenario.view("jobqueue_queue_stats")] == [3]


@pytest.mark.databases("postgres")
def test_minutes_are_of_utc_whatever_the_time_zone_of_the_session(url: str) -> None:
    scenario = StoreScenario(f"{url}&options=-c%20TimeZone%3DAsia/Kolkata")
    minute = scenario.clock().replace(second=0, microsecond=0) - timedelta(minutes=5)
    values = [{"minute": minute, "queue": "q", "task": "t", "succeeded": 1}] * 2
    scenario.execute(insert(counters).values(values))

    assert scenario.maintenance.compact() == 2
    (row,) = scenario.throughput()
    assert (row["minute"], row["succeeded"]) == (minute, 2)
    assert row["minute"].tzinfo is UTC
    scenario.store.close()


def test_throughput_does_not_take_a_total_for_a_minute(
    scenario: StoreScenario,
) -> None:
    scenario.enqueue()
    scenario.run(1)
    scenario.execute(update(counters).values(kind=CounterKind.TOTAL))
    assert scenario.view("jobqueue_throughput") == []
    assert scenario.queue()["succeeded"] == 1


def test_throughput_per_second_is_over_the_last_sixty_seconds(scenario: StoreScenario) -> None:
    def count(minutes_ago: int, ended: int) -> None:
        minute = scenario.clock().replace(second=0, microsecond=0) - timedelta(minutes=minutes_ago)
        values = {"minute": minute, "queue": "q", "task": "t", "succeeded": ended, "failed": 0}
        scenario.execute(insert(counters).values(values))

    assert scenario.monitor.stats()["throughput_per_second"] == 0
    count(2, 100_000)
    assert scenario.monitor.stats()["throughput_per_second"] == 0
    count(1, 600)
    count(0, 600)
    # All of this minute, and of the last one what is left of 60 s; a minute may end meanwhile.
    assert 0 < scenario.monitor.stats()["throughput_per_second"] <= 20
    scenario.execute(update(counters).where(counters.c.succeeded == 600).values(minute=after(-1.0)))
    assert 10 <= scenario.monitor.stats()["throughput_per_second"] <= 20


def test_stats_has_the_shape_of_the_contract(scenario: StoreScenario) -> None:
    scenario.enqueue(2)
    scenario.run(1)
    stats = scenario.monitor.stats()
    assert list(stats) == [
        "queues",
        "tasks",
        "workers",
        "throughput_per_second",
        "minutes",
        "pauses",
    ]
    more = {"available_more", "scheduled_more"}
    assert set(stats["queues"][0]) == {*COLUMNS["jobqueue_queue_stats"].split()} | more
    assert list(stats["tasks"][0]) == [
        *COLUMNS["jobqueue_task_stats"].split(),
        "waiting",
        "waiting_more",
        "known_by",
        "paused",
    ]
    assert stats["workers"] == 1
