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
from jobqueue.store.maintenance import MINUTES_KEPT
from jobqueue.store.schema import CounterKind, counters, jobs, workers
from tests.store.conftest import Scene

COLUMNS = {
    "jobqueue_queue_stats": "queue scheduled available running succeeded failed cancelled paused oldest_available_seconds max_pending",
    "jobqueue_task_stats": "task succeeded failed cancelled errored_attempts avg_duration max_duration avg_wait max_wait",
    "jobqueue_worker_stats": "worker host pid queues concurrency running processed errored heartbeat_age_seconds started_at lease",
    "jobqueue_throughput": "minute queue task succeeded failed cancelled errored_attempts avg_duration",
}


@pytest.mark.parametrize("view", COLUMNS)
def test_a_view_has_the_same_columns_in_the_same_order_on_both_databases(
    scene: Scene, view: str
) -> None:
    with scene.store.read() as connection:
        assert (
            list(connection.execute(text(f"SELECT * FROM {view}")).keys()) == COLUMNS[view].split()
        )


# Queues


def test_live_states_are_counted_exactly_by_queue(scene: Scene) -> None:
    scene.enqueue(5)
    scene.enqueue(2, delay=60.0)
    scene.enqueue(3, queue="mail")
    scene.claim(2)

    row = scene.queue()
    assert (row["scheduled"], row["available"], row["running"]) == (2, 3, 2)
    row = scene.queue("mail")
    assert (row["scheduled"], row["available"], row["running"]) == (0, 3, 0)


def test_final_states_are_counted_by_what_happened_ever(scene: Scene) -> None:
    ids = scene.enqueue(6)
    scene.run(2)
    scene.fail(1)
    scene.jobs.cancel(JobFilter(ids=(ids[-1],)))
    scene.jobs.rerun(JobFilter(ids=(ids[0],)), succeeded=True)
    scene.run(1)

    row = scene.queue()
    assert (row["succeeded"], row["failed"], row["cancelled"], row["available"]) == (3, 1, 1, 2)


def test_counts_ever_survive_the_deletion_of_the_jobs_and_the_folding_of_the_counts(
    scene: Scene,
) -> None:
    scene.enqueue(5)
    for _ in range(3):
        scene.run(1)
    scene.fail(2)
    before = scene.queue(), scene.task()

    for state in (State.SUCCEEDED, State.FAILED):
        assert scene.maintenance.prune(state, -1.0) > 0
    assert scene.jobs.count(JobFilter()) == 0
    assert (scene.queue(), scene.task()) == before
    for age in (120.0, MINUTES_KEPT + 60.0):  # Added up, then forgotten as a minute.
        minute = scene.clock() - timedelta(seconds=age)
        scene.execute(update(counters).values(minute=minute))
        assert scene.maintenance.compact() > 0
        assert (scene.queue(), scene.task()) == before
    with scene.store.read() as connection:
        assert connection.execute(select(counters.c.kind)).scalars().all() == [CounterKind.TOTAL]


def test_a_queue_that_is_paused_appears_though_nobody_has_seen_it(scene: Scene) -> None:
    assert scene.view("jobqueue_queue_stats") == []
    assert scene.monitor.pause("quiet")
    row = scene.queue("quiet")
    assert row["paused"] == 1
    assert row["available"] == 0
    assert row["oldest_available_seconds"] is None


def test_pausing_and_resuming_say_whether_they_changed_anything(scene: Scene) -> None:
    scene.enqueue()
    assert scene.queue()["paused"] == 0
    assert [scene.monitor.pause("default"), scene.monitor.pause("default")] == [True, False]
    assert scene.monitor.queues()[0]["paused"] is True
    assert scene.claim(1) == []
    assert [scene.monitor.resume("default"), scene.monitor.resume("default")] == [True, False]
    assert scene.monitor.queues()[0]["paused"] is False
    assert len(scene.claim(1)) == 1
    assert [scene.monitor.pause("default"), scene.monitor.resume("never seen")] == [True, False]


def test_the_oldest_available_job_tells_its_age_whatever_its_priority(scene: Scene) -> None:
    scene.enqueue(at=scene.clock() - timedelta(seconds=90))
    scene.enqueue(at=scene.clock() - timedelta(seconds=30))
    scene.execute(update(jobs).where(jobs.c.id == 1).values(priority=5))
    scene.enqueue(queue="later", delay=60.0)

    assert 90 <= scene.queue()["oldest_available_seconds"] < 120
    assert scene.queue("later")["oldest_available_seconds"] is None


def test_an_age_is_never_negative(scene: Scene) -> None:
    scene.enqueue()
    scene.execute(update(jobs).values(run_at=after(3600.0)))
    assert scene.queue()["oldest_available_seconds"] == 0
    scene.register()
    scene.execute(update(workers).values(heartbeat_at=after(3600.0)))
    assert scene.view("jobqueue_worker_stats")[0]["heartbeat_age_seconds"] == 0


# Tasks


def test_a_tasks_times_are_over_all_handlers_that_ended(scene: Scene) -> None:
    scene.enqueue(4)
    scene.run(2, duration=1.0, wait=0.5)
    scene.run(1, duration=4.0, wait=2.0)
    scene.fail(1, duration=2.0)

    assert scene.task() == {
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


def test_a_task_that_never_ran_has_no_times(scene: Scene) -> None:
    scene.jobs.cancel(JobFilter(ids=tuple(scene.enqueue())))
    row = scene.task()
    assert row["cancelled"] == 1
    assert {row[name] for name in row if name.startswith(("avg", "max"))} == {None}


def test_an_attempt_that_is_tried_again_is_errored_and_not_failed(scene: Scene) -> None:
    scene.enqueue()
    (claim,) = scene.claim(1)
    scene.finish(Unsuccessful(claim, "errored", State.SCHEDULED, delay=60.0, duration=0.1))
    row = scene.task()
    assert (row["errored_attempts"], row["failed"]) == (1, 0)


def test_a_waiting_task_appears_though_nothing_of_it_has_ended(scene: Scene) -> None:
    scene.enqueue()
    scene.run(1)
    scene.enqueue(2, task="new")
    scene.enqueue(1, task="new", delay=60.0)

    rows = {row["task"]: row for row in scene.monitor.tasks()}
    assert list(rows) == ["add", "new"]
    assert (rows["add"]["waiting"], rows["add"]["succeeded"], rows["add"]["known_by"]) == (0, 1, 1)
    assert rows["new"] == {
        **dict.fromkeys(COLUMNS["jobqueue_task_stats"].split()),
        **dict.fromkeys(("succeeded", "failed", "cancelled", "errored_attempts"), 0),
        "task": "new",
        "waiting": 3,
        "known_by": 0,
    }


def test_a_task_is_known_by_the_live_workers_that_name_it(scene: Scene) -> None:
    scene.enqueue(task="add")
    scene.enqueue(task="orphan")
    scene.register("w1", ("add", "other"))
    scene.register("w2", ("add",))
    dead = scene.register("w3", ("add", "orphan"))
    scene.execute(update(workers).where(workers.c.id == dead.id).values(heartbeat_at=after(-31.0)))

    assert {row["task"]: row["known_by"] for row in scene.monitor.tasks()} == {
        "add": 2,
        "orphan": 0,
    }
    assert scene.monitor.stats()["workers"] == 2


# Workers


def test_a_worker_tells_what_it_is_and_how_old_its_heartbeat_is(scene: Scene) -> None:
    holder = scene.register("w1", queues=("mail", "default"))
    scene.register("w2")
    scene.leases.renew(holder.id, running=2, processed=10, errored=1, concurrency=8)
    scene.execute(
        update(workers).where(workers.c.id == holder.id).values(heartbeat_at=after(-12.0))
    )

    viewed = {row["worker"]: row for row in scene.view("jobqueue_worker_stats")}
    assert json.loads(viewed["w1"]["queues"]) == ["mail", "default"]
    first, second = scene.monitor.workers()
    assert 12 <= first.pop("heartbeat_age_seconds") < 42
    assert abs(first.pop("started_at") - scene.clock()) < timedelta(seconds=30)
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
    }
    assert second["queues"] is None
    assert second["started_at"].tzinfo is UTC


# Throughput


def test_throughput_tells_each_minute_and_folding_changes_nothing(scene: Scene) -> None:
    scene.enqueue(4)
    scene.run(2, duration=1.0)
    scene.run(1, duration=4.0)
    scene.fail(1, duration=2.0)
    minute = scene.clock().replace(second=0, microsecond=0) - timedelta(minutes=5)
    scene.execute(update(counters).values(minute=minute))

    before = scene.throughput()
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
    assert scene.maintenance.compact() == 3
    assert scene.throughput() == before
    assert [row["succeeded"] for row in scene.view("jobqueue_queue_stats")] == [3]


@pytest.mark.databases("postgres")
def test_minutes_are_of_utc_whatever_the_time_zone_of_the_session(url: str) -> None:
    scene = Scene(f"{url}&options=-c%20TimeZone%3DAsia/Kolkata")
    minute = scene.clock().replace(second=0, microsecond=0) - timedelta(minutes=5)
    values = [{"minute": minute, "queue": "q", "task": "t", "succeeded": 1}] * 2
    scene.execute(insert(counters).values(values))

    assert scene.maintenance.compact() == 2
    (row,) = scene.throughput()
    assert (row["minute"], row["succeeded"]) == (minute, 2)
    assert row["minute"].tzinfo is UTC
    scene.store.close()


def test_throughput_does_not_take_a_total_for_a_minute(
    scene: Scene,
) -> None:
    scene.enqueue()
    scene.run(1)
    scene.execute(update(counters).values(kind=CounterKind.TOTAL))
    assert scene.view("jobqueue_throughput") == []
    assert scene.queue()["succeeded"] == 1


def test_throughput_per_second_is_over_the_last_sixty_seconds(scene: Scene) -> None:
    def count(minutes_ago: int, ended: int) -> None:
        minute = scene.clock().replace(second=0, microsecond=0) - timedelta(minutes=minutes_ago)
        values = {"minute": minute, "queue": "q", "task": "t", "succeeded": ended, "failed": 0}
        scene.execute(insert(counters).values(values))

    assert scene.monitor.stats()["throughput_per_second"] == 0
    count(2, 100_000)
    assert scene.monitor.stats()["throughput_per_second"] == 0
    count(1, 600)
    count(0, 600)
    # All of this minute, and of the last one what is left of 60 s; a minute may end meanwhile.
    assert 0 < scene.monitor.stats()["throughput_per_second"] <= 20
    scene.execute(update(counters).where(counters.c.succeeded == 600).values(minute=after(-1.0)))
    assert 10 <= scene.monitor.stats()["throughput_per_second"] <= 20


def test_stats_has_the_shape_of_the_contract(scene: Scene) -> None:
    scene.enqueue(2)
    scene.run(1)
    stats = scene.monitor.stats()
    assert list(stats) == ["queues", "tasks", "workers", "throughput_per_second", "minutes"]
    assert list(stats["queues"][0]) == COLUMNS["jobqueue_queue_stats"].split()
    assert list(stats["tasks"][0]) == [
        *COLUMNS["jobqueue_task_stats"].split(),
        "waiting",
        "known_by",
    ]
    assert stats["workers"] == 1
