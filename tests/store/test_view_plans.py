"""The plans of the monitoring views: statistics of live jobs do not read the finished ones."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, bindparam, event, insert, text

from jobqueue.store.history import Figures, History
from jobqueue.store.schema import CounterKind, counters, history
from tests.store.conftest import StoreScenario

pytestmark = pytest.mark.slow

# Plans


FINISHED = 100_000
LIVE_INDEXES = {f"jobqueue_jobs_{name}" for name in ("claim", "lane", "due", "held")}


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
    scenario: StoreScenario, backend_name: str
) -> None:
    with scenario.store.write() as connection:
        if backend_name == "postgres":
            never = text("ALTER TABLE jobqueue_jobs SET (autovacuum_enabled = false)")
            connection.execute(never)
        make_history(connection)
    scenario.enqueue(20)
    scenario.enqueue(10, delay=60.0)
    scenario.claim(5)
    row = scenario.queue()
    assert (row["scheduled"], row["available"], row["running"]) == (10, 15, 5)
    if backend_name == "sqlite":  # Where usually nobody ever runs ANALYZE.
        check_plans(scenario, steps_on_sqlite)
        scenario.execute(text("ANALYZE"))
        check_plans(scenario, steps_on_sqlite)
    else:  # Where autovacuum does, if somewhat later.
        check_plans(scenario, pages_on_postgres)
        scenario.execute(text("ANALYZE"))
        check_plans(scenario, pages_on_postgres)


@pytest.mark.databases("postgres")  # SQLite has no such statistics.
def test_waiting_jobs_are_counted_in_their_indexes_however_many_there_are(
    scenario: StoreScenario,
) -> None:
    """Analyzed and not vacuumed, which lets an index seem dear."""
    with scenario.store.write() as connection:
        never = text("ALTER TABLE jobqueue_jobs SET (autovacuum_enabled = false)")
        connection.execute(never)
        make_history(connection)
        for state, remainder in (("available", 1), ("scheduled", 2)):
            waiting = "UPDATE jobqueue_jobs SET finished_at = NULL, state = :state WHERE id % 4 = :remainder"
            connection.execute(text(waiting), {"state": state, "remainder": remainder})
        connection.execute(text("CLUSTER jobqueue_jobs USING jobqueue_jobs_pkey"))  # Mixed again.
    scenario.execute(text("ANALYZE"))
    assert (scenario.queue()["available"], scenario.queue()["scheduled"]) == (
        FINISHED / 4,
        FINISHED / 4,
    )
    with scenario.store.read() as connection:
        connection.execute(text("SET LOCAL enable_bitmapscan = off"))  # The last before the table.
        explain = text("EXPLAIN (FORMAT JSON) SELECT * FROM jobqueue_queue_stats")
        plan = connection.execute(explain).scalar_one()[0]["Plan"]
    nodes = list(nodes_of(plan))
    read = [node for node in nodes if node.get("Relation Name") == "jobqueue_jobs"]
    assert "Seq Scan" not in {node["Node Type"] for node in read}
    assert {node["Index Name"] for node in nodes if "Index Name" in node} == LIVE_INDEXES
    # In many queues, so that the order of the index is not that of the table.
    scenario.execute(
        text("UPDATE jobqueue_jobs SET queue = 'q' || id / 4 % 7 WHERE state = 'available'")
    )
    scenario.execute(text("ANALYZE"))
    count = plan_of_the_count(scenario, "EXPLAIN")
    assert [line for line in count if "Index Only Scan using jobqueue_jobs_claim" in line], count
    assert not [line for line in count if "Seq Scan on jobqueue_jobs" in line], count


def check_plans(scenario: StoreScenario, check: Callable[[Connection, str], None]) -> None:
    with scenario.store.read() as connection:
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
    assert len(on_jobs) == 4
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
def test_totals_are_read_without_the_minutes(
    scenario: StoreScenario, backend_name: str, view: str
) -> None:
    """Of minutes there is a row for each queue and task; a total is one row for all of them."""
    minute = scenario.clock().replace(second=0, microsecond=0) - timedelta(minutes=1)
    same = {"minute": minute, "queue": "q", "task": "t", "succeeded": 1}
    levels = [0, 0, CounterKind.TOTAL, *[CounterKind.PERIOD] * 30_000]
    with scenario.store.write() as connection:
        connection.execute(insert(counters), [{**same, "kind": level} for level in levels])
    scenario.execute(text("ANALYZE"))
    explain = "EXPLAIN QUERY PLAN" if backend_name == "sqlite" else "EXPLAIN"
    with scenario.store.read() as connection:
        rows = connection.execute(text(f"{explain} SELECT * FROM {view}"))
        plan = [str(row[-1]).strip() for row in rows]
    assert [line for line in plan if "jobqueue_counters_minute" in line], plan
    assert not [line for line in plan if re.match(r"(-> +Seq |SCAN).*_counters", line)], plan
    (before,) = scenario.view(view)
    assert before["succeeded"] == 3
    assert scenario.maintenance.compact() == 2
    assert scenario.view(view) == [before]


def test_throughput_per_second_reads_its_minutes_only(
    scenario: StoreScenario, backend_name: str
) -> None:
    present = scenario.clock()
    scenario.execute(
        insert(counters).values(
            [
                {"minute": present - timedelta(minutes=n), "queue": "q", "task": "t", "kind": kind}
                for n, kind in [
                    *((n, CounterKind.PERIOD) for n in range(3000)),
                    (3000, CounterKind.TOTAL),
                ]
            ]
        )
    )
    scenario.execute(text("ANALYZE"))
    seen: list[tuple[str, Any]] = []

    @event.listens_for(scenario.store.engine, "before_cursor_execute")
    def executing(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM jobqueue_throughput" in statement:
            seen.append((statement, parameters))

    scenario.monitor.stats()
    explain = "EXPLAIN QUERY PLAN" if backend_name == "sqlite" else "EXPLAIN"
    assert len(seen) == 1
    for statement, parameters in seen.copy():
        with scenario.store.read() as connection:
            plan = [
                str(row[-1])
                for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)
            ]
        (line,) = [line for line in plan if "jobqueue_counters_minute" in line]
        assert backend_name != "sqlite" or line.endswith("(kind=? AND minute>?)")


@pytest.mark.parametrize(
    ("view", "task"), [("jobqueue_task_minutes", "t"), ("jobqueue_worker_minutes", "")]
)
def test_a_range_of_minutes_is_read_by_its_index(
    scenario: StoreScenario, backend_name: str, view: str, task: str
) -> None:
    present = scenario.clock()
    rows = [
        {"minute": present - timedelta(minutes=n), "worker": "w", "task": task} for n in range(1440)
    ]
    scenario.execute(insert(history).values(rows))
    scenario.execute(text("ANALYZE"))
    explain = "EXPLAIN QUERY PLAN" if backend_name == "sqlite" else "EXPLAIN"
    recent = f"SELECT * FROM {view} WHERE minute > :since"
    since = {"since": present - timedelta(minutes=5)}
    typed = text(recent).bindparams(bindparam("since", type_=history.c.minute.type))
    with scenario.store.read() as connection:
        assert len(connection.execute(typed, since).all()) == 5
        plan = text(f"{explain} {recent}").bindparams(
            bindparam("since", type_=history.c.minute.type)
        )
        lines = [str(row[-1]) for row in connection.execute(plan, since)]
    bound = (
        "jobqueue_history_minute (minute>?)"
        if backend_name == "sqlite"
        else "Index Cond: (minute >"
    )
    assert [line for line in lines if bound in line], lines


def plan_of_the_count(scenario: StoreScenario, explain: str) -> list[str]:
    """How a worker's record of its minute finds the jobs that wait, in its own transaction."""
    plan: list[str] = []

    @event.listens_for(scenario.store.engine, "before_cursor_execute")
    def executing(
        connection: Connection, _cursor: Any, statement: str, given: Any, *_: Any
    ) -> None:
        if statement.startswith("INSERT INTO jobqueue_history"):
            one = given[0] if isinstance(given, list) else given
            rows = connection.exec_driver_sql(f"{explain} {statement}", one)
            plan.extend(str(row[-1]) for row in rows)

    idle = Figures("", 0, 0, 0, 0, 0.0, None, 0.0, None)
    History(scenario.store).add("w", [idle])
    event.remove(scenario.store.engine, "before_cursor_execute", executing)
    return plan


def test_what_waits_is_counted_in_the_indexes_of_available_jobs(
    scenario: StoreScenario, backend_name: str
) -> None:
    explain = "EXPLAIN QUERY PLAN" if backend_name == "sqlite" else "EXPLAIN"
    plan = plan_of_the_count(scenario, explain)
    of_jobs = sorted(line for line in plan if "jobqueue_jobs" in line)
    assert ["jobqueue_jobs_claim" in of_jobs[0], "jobqueue_jobs_lane" in of_jobs[1]] == [True] * 2
    assert len(of_jobs) == 2 and [line for line in plan if "jobqueue_history_waiting" in line], plan
