"""The monitoring views, and the Monitor that reads them, on both databases."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select, text, update

from jobqueue.store.clock import after, now
from jobqueue.records import Claim, Unsuccessful, JobFilter, NewJob, Registration, Succeeded
from jobqueue.store.schema import CounterKind, counters, jobs, workers
from jobqueue.states import State
from jobqueue.store.claims import PRIORITY_BEFORE_ALL, START, Claims, WorkerRef, PriorityLevel
from jobqueue.store.jobs import Jobs
from jobqueue.store.stats import Monitor
from jobqueue.store.database import Store
from jobqueue.store.completion import Completion
from jobqueue.store.leases import Leases
from jobqueue.store.maintenance import MINUTES_KEPT, Maintenance

COLUMNS = {
    "jobqueue_queue_stats": "queue scheduled available running succeeded failed cancelled paused oldest_available_seconds max_pending",
    "jobqueue_task_stats": "task succeeded failed cancelled errored_attempts avg_duration max_duration avg_wait max_wait",
    "jobqueue_worker_stats": "worker host pid queues concurrency running processed errored heartbeat_age_seconds started_at lease",
    "jobqueue_throughput": "minute queue task succeeded failed cancelled errored_attempts avg_duration",
}


class Scene:
    """A database with its stores, and the moves that the tests make."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self.jobs = Jobs(self.store)
        self.claims = Claims(self.store)
        self.completion = Completion(self.store)
        self.leases = Leases(self.store)
        self.maintenance = Maintenance(self.store)
        self.monitor = Monitor(self.store)
        self.worker: WorkerRef | None = None

    def enqueue(self, count: int = 1, task: str = "add", queue: str = "default", *, delay: float | None = None,
                at: datetime | None = None) -> list[int]:  # fmt: skip
        new = NewJob(
            task, queue, 0, '{"args":[],"kwargs":{}}', None, delay, at, 10, None, None, None, None
        )
        return [job.id for job in self.jobs.insert([new] * count)]

    def register(self, name: str = "w1", tasks: tuple[str, ...] = ("add",), queues: tuple[str, ...] | None = None) -> WorkerRef:  # fmt: skip
        who = Registration(name, "host", 7, None, None, None, None, queues, tasks, 4, 30.0)
        return WorkerRef(self.leases.register(who), name)

    def claim(self, count: int, queue: str = "default") -> list[Claim]:
        if self.worker is None:
            self.worker = self.register()
        with self.store.write() as connection:
            pair = PriorityLevel(queue, 0)
            return self.claims.claim(connection, self.worker, pair, START, limit=count, free=count)

    def finish(self, *outcomes: Succeeded | Unsuccessful) -> None:
        assert self.worker is not None
        with self.store.write() as connection:
            accepted = self.completion.complete(connection, self.worker, outcomes)
        assert len(accepted) == len(outcomes)

    def run(
        self, count: int, queue: str = "default", duration: float = 0.5, wait: float = 0.25
    ) -> None:
        self.finish(
            *(Succeeded(claim, None, None, duration, wait) for claim in self.claim(count, queue))
        )

    def fail(self, count: int, queue: str = "default", duration: float = 0.5) -> None:
        self.finish(
            *(
                Unsuccessful(claim, "errored", State.FAILED, duration=duration)
                for claim in self.claim(count, queue)
            )
        )

    def view(self, name: str) -> list[dict[str, Any]]:
        with self.store.read() as connection:
            return [
                dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()
            ]

    def queue(self, name: str = "default") -> dict[str, Any]:
        (row,) = (row for row in self.view("jobqueue_queue_stats") if row["queue"] == name)
        return row

    def task(self, name: str = "add") -> dict[str, Any]:
        (row,) = (row for row in self.view("jobqueue_task_stats") if row["task"] == name)
        return row

    def execute(self, statement: Any) -> None:
        with self.store.write() as connection:
            connection.execute(statement)

    def clock(self) -> datetime:
        with self.store.read() as connection:
            return connection.execute(select(now())).scalar_one()


@pytest.fixture
def scene(url: str) -> Iterator[Scene]:
    scene = Scene(url)
    yield scene
    scene.store.close()


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

    before = scene.monitor.throughput()
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
    assert scene.monitor.throughput() == before
    assert [row["succeeded"] for row in scene.view("jobqueue_queue_stats")] == [3]
    assert scene.monitor.throughput(minutes=3) == []


@pytest.mark.parametrize("backend_name", ["postgres"])
def test_minutes_are_of_utc_whatever_the_time_zone_of_the_session(url: str) -> None:
    scene = Scene(f"{url}&options=-c%20TimeZone%3DAsia/Kolkata")
    minute = scene.clock().replace(second=0, microsecond=0) - timedelta(minutes=5)
    values = [{"minute": minute, "queue": "q", "task": "t", "succeeded": 1}] * 2
    scene.execute(insert(counters).values(values))

    assert scene.maintenance.compact() == 2
    (row,) = scene.monitor.throughput()
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


# Plans


FINISHED = 100_000
LIVE_INDEXES = {"jobqueue_jobs_claim", "jobqueue_jobs_due", "jobqueue_jobs_held"}


def make_history(connection: Connection) -> None:
    """Many finished jobs and a few live ones."""
    connection.execute(
        text(
            "INSERT INTO jobqueue_jobs (task, queue, state, finished_at, args)"
            " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
            " SELECT 'add', 'default', CASE i % 3 WHEN 0 THEN 'failed' WHEN 1 THEN 'cancelled' ELSE 'succeeded' END,"
            ' CURRENT_TIMESTAMP, \'{"args":["as long as arguments usually are"],"kwargs":{}}\' FROM n'
        ),
        {"count": FINISHED},
    )


def test_statistics_of_live_jobs_do_not_read_the_finished_ones(
    scene: Scene, backend_name: str
) -> None:
    with scene.store.write() as connection:
        if backend_name == "postgres":
            never = text("ALTER TABLE jobqueue_jobs SET (autovacuum_enabled = false)")
            connection.execute(never)
        make_history(connection)
    scene.enqueue(20)
    scene.enqueue(10, delay=60.0)
    scene.claim(5)
    row = scene.queue()
    assert (row["scheduled"], row["available"], row["running"]) == (10, 15, 5)
    if backend_name == "sqlite":  # Where usually nobody ever runs ANALYZE.
        check_plans(scene, steps_on_sqlite)
        scene.execute(text("ANALYZE"))
        check_plans(scene, steps_on_sqlite)
    else:  # Where autovacuum does, if somewhat later.
        check_plans(scene, pages_on_postgres)
        scene.execute(text("ANALYZE"))
        check_plans(scene, pages_on_postgres)


@pytest.mark.parametrize("backend_name", ["postgres"])  # SQLite has no such statistics.
def test_waiting_jobs_are_counted_in_their_indexes_however_many_there_are(scene: Scene) -> None:
    """Analyzed and not vacuumed, which lets an index seem dear."""
    with scene.store.write() as connection:
        never = text("ALTER TABLE jobqueue_jobs SET (autovacuum_enabled = false)")
        connection.execute(never)
        make_history(connection)
        for state, remainder in (("available", 1), ("scheduled", 2)):
            waiting = "UPDATE jobqueue_jobs SET finished_at = NULL, state = :state WHERE id % 4 = :remainder"
            connection.execute(text(waiting), {"state": state, "remainder": remainder})
        connection.execute(text("CLUSTER jobqueue_jobs USING jobqueue_jobs_pkey"))  # Mixed again.
    scene.execute(text("ANALYZE"))
    assert (scene.queue()["available"], scene.queue()["scheduled"]) == (FINISHED / 4, FINISHED / 4)
    with scene.store.read() as connection:
        connection.execute(text("SET LOCAL enable_bitmapscan = off"))  # The last before the table.
        explain = text("EXPLAIN (FORMAT JSON) SELECT * FROM jobqueue_queue_stats")
        plan = connection.execute(explain).scalar_one()[0]["Plan"]
    nodes = list(nodes_of(plan))
    read = [node for node in nodes if node.get("Relation Name") == "jobqueue_jobs"]
    assert "Seq Scan" not in {node["Node Type"] for node in read}
    assert {node["Index Name"] for node in nodes if "Index Name" in node} == LIVE_INDEXES


def check_plans(scene: Scene, check: Callable[[Connection, str], None]) -> None:
    with scene.store.read() as connection:
        for query in (
            "SELECT * FROM jobqueue_queue_stats",
            "SELECT * FROM jobqueue_queue_stats WHERE queue = 'default'",
            "SELECT sum(scheduled), sum(available), sum(running) FROM jobqueue_queue_stats",
        ):
            check(connection, query)


def steps_on_sqlite(connection: Connection, query: str) -> None:
    """Each part uses a partial index, and all takes few steps of SQLite's machine, however fast that is."""
    plan = [str(row[3]) for row in connection.execute(text(f"EXPLAIN QUERY PLAN {query}"))]
    on_jobs = [line for line in plan if "jobqueue_jobs" in line]
    assert len(on_jobs) == 3
    assert {line.split("INDEX ")[1].split()[0] for line in on_jobs} == LIVE_INDEXES

    raw: Any = connection.connection.driver_connection
    hundreds = 0

    def count() -> int:
        nonlocal hundreds
        hundreds += 1
        return 0

    raw.set_progress_handler(count, 100)
    raw.execute(query).fetchall()
    raw.set_progress_handler(None, 0)
    assert hundreds * 100 < FINISHED / 10


def pages_on_postgres(connection: Connection, query: str) -> None:
    """Each part uses a partial index, and all takes few pages."""
    explain = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}")
    plan = connection.execute(explain).scalar_one()[0]["Plan"]
    nodes = list(nodes_of(plan))
    used = {node["Index Name"] for node in nodes if "Index Name" in node}
    assert {name for name in used if name.startswith("jobqueue_jobs_")} == LIVE_INDEXES
    assert not [
        node for node in nodes
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "jobqueue_jobs"
    ]  # fmt: skip
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 200  # The table has 2,000.


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes_of(child)


@pytest.mark.parametrize("view", ["jobqueue_queue_stats", "jobqueue_task_stats"])
def test_totals_are_read_without_the_minutes(scene: Scene, backend_name: str, view: str) -> None:
    """Of minutes there is a row for each queue and task; a total is one row for all of them."""
    minute = scene.clock().replace(second=0, microsecond=0) - timedelta(minutes=1)
    same = {"minute": minute, "queue": "q", "task": "t", "succeeded": 1}
    levels = [0, 0, CounterKind.TOTAL, *[CounterKind.MINUTE] * 30_000]
    with scene.store.write() as connection:
        connection.execute(insert(counters), [{**same, "kind": level} for level in levels])
    scene.execute(text("ANALYZE"))
    explain = "EXPLAIN QUERY PLAN" if backend_name == "sqlite" else "EXPLAIN"
    with scene.store.read() as connection:
        rows = connection.execute(text(f"{explain} SELECT * FROM {view}"))
        plan = [str(row[-1]).strip() for row in rows]
    assert [line for line in plan if "jobqueue_counters_minute" in line], plan
    assert not [line for line in plan if re.match(r"(-> +Seq |SCAN).*_counters", line)], plan
    (before,) = scene.view(view)
    assert before["succeeded"] == 3
    assert scene.maintenance.compact() == 2
    assert scene.view(view) == [before]


def test_throughput_of_the_last_hour_reads_its_minutes_only(
    scene: Scene, backend_name: str
) -> None:
    present = scene.clock()
    scene.execute(
        insert(counters).values(
            [
                {"minute": present - timedelta(minutes=n), "queue": "q", "task": "t", "kind": kind}
                for n, kind in [
                    *((n, CounterKind.MINUTE) for n in range(3000)),
                    (3000, CounterKind.TOTAL),
                ]
            ]
        )
    )
    scene.execute(text("ANALYZE"))
    seen: list[tuple[str, Any]] = []

    @event.listens_for(scene.store.engine, "before_cursor_execute")
    def executing(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM jobqueue_throughput" in statement:
            seen.append((statement, parameters))

    assert len(scene.monitor.throughput()) in (60, 61)
    scene.monitor.stats()
    explain = "EXPLAIN QUERY PLAN" if backend_name == "sqlite" else "EXPLAIN"
    assert len(seen) == 2
    for statement, parameters in seen.copy():
        with scene.store.read() as connection:
            plan = [
                str(row[-1])
                for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)
            ]
        (line,) = [line for line in plan if "jobqueue_counters_minute" in line]
        assert backend_name != "sqlite" or line.endswith("(kind=? AND minute>?)")
