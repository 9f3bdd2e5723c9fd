"""Which index each hot statement uses, on a table of mostly finished jobs: none reads them all.

On PostgreSQL twice: with statistics that were never made (a backlog that has just come), and fresh.
"""

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, text, update

from jobqueue.new_jobs import Conflict, NewJob
from jobqueue.records import JobFilter
from jobqueue.store.claims import END as END_OF_CLAIMS
from jobqueue.store.claims import START, Claims
from jobqueue.store.clock import after
from jobqueue.store.key_conflicts import conflict_parameters
from jobqueue.store.job_pages import JobPages, is_counted
from jobqueue.store.jobs import Jobs
from jobqueue.store.names import names_in_use
from jobqueue.store.paused import PausedJobs, Searched
from jobqueue.store.sql.claim import CURSORS, RANGES
from jobqueue.store.sql.lanes import lane_statements
from jobqueue.store.sql.rows import COUNTS, IDS, NAMES
from jobqueue.store.sql.statements import END, PAIRS, PROGRESS, SUCCESS
from jobqueue.store.database import Store
from jobqueue.store.maintenance import Maintenance
from jobqueue.store.schema import jobs, queues, workers
from jobqueue.states import State
from jobqueue.store.stats import Monitor
from jobqueue.store.why import Explanation, explain
from tests.store.query_plans import Plans, looks_up, uses, within

FINISHED, WAITING, RUNNING = 100_000, 2_000, 200
FILL = {
    "sqlite": """
        WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
        INSERT INTO jobqueue_jobs (task, queue, state, worker_id, fence, finished_at, run_at)
        SELECT 'add', 'q' || (n % 3), {state}, {worker}, {fence}, {finished},
            strftime('%Y-%m-%d %H:%M:%f000', 'now', (n % 2000) || ' seconds', '{shift} seconds')
        FROM numbers""",
    "postgresql": """
        INSERT INTO jobqueue_jobs (task, queue, state, worker_id, fence, finished_at, run_at)
        SELECT 'add', 'q' || (n % 3), {state}, {worker}, {fence}, {finished},
            clock_timestamp() + (n % 2000 + {shift}) * INTERVAL '1 second'
        FROM generate_series(1, {count}) AS numbers (n)""",
}


def fill(connection: Connection) -> None:
    dialect = connection.dialect.name
    now = {"sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now')", "postgresql": "now()"}[dialect]
    if dialect == "postgresql":
        for table in ("jobs", "workers", "attempts"):
            connection.execute(
                text(f"ALTER TABLE jobqueue_{table} SET (autovacuum_enabled = false)")
            )
    connection.execute(
        text(
            "INSERT INTO jobqueue_workers (name, host, pid, tasks, concurrency, lease)"
            " VALUES ('w', 'h', 1, '[]', 4, 3600)"
        )
    )
    done = "CASE n % 50 WHEN 0 THEN 'failed' ELSE 'succeeded' END"
    parts = [
        {"count": FINISHED, "state": done, "worker": "NULL", "fence": 2, "finished": now},
        {"count": WAITING // 2, "state": "'available'", "worker": "NULL", "fence": 0},
        {"count": WAITING // 2, "state": "'scheduled'", "worker": "NULL", "fence": 0},
        {"count": RUNNING - 10, "state": "'running'", "worker": "1", "fence": 1},
        {"count": 10, "state": "'running'", "worker": "99", "fence": 1},
    ]
    for part in parts:
        connection.execute(
            text(FILL[dialect].format(**{"finished": "NULL", "shift": -500, **part}))
        )
    connection.execute(
        text(
            "INSERT INTO jobqueue_attempts (job_id, fence, attempt, finished_at, outcome, error_type,"
            f" error_signature) SELECT id, 1, 1, {now}, 'errored', 'E', 'add E' || (id % 3)"
            " FROM jobqueue_jobs WHERE state = 'failed'"
        )
    )


@pytest.fixture(scope="module")
def filled() -> Iterator[dict[str, Store]]:
    """The databases of this file by name, each filled once."""
    stores: dict[str, Store] = {}
    yield stores
    for store in stores.values():
        store.close()


@pytest.fixture(params=["without statistics", "analyzed"])
def plans(
    request: pytest.FixtureRequest,
    backend_name: str,
    filled: dict[str, Store],
    tmp_path_factory: pytest.TempPathFactory,
) -> Plans:
    name = f"{backend_name} {request.param}"
    if name not in filled:
        if backend_name == "sqlite":
            file = tmp_path_factory.mktemp("plans") / "jobqueue.db"
            shutil.copy(request.getfixturevalue("sqlite_template"), file)
            filled[name] = Store(f"sqlite:///{file}")
        else:
            server = request.getfixturevalue("postgres_server")
            filled[name] = Store(server.url(server.create(template=server.template)))
        with filled[name].write() as connection:
            fill(connection)
        if request.param == "analyzed":
            with filled[name].write() as connection:
                connection.execute(text("ANALYZE"))
    store = filled[name]
    request.node.user_properties.append(("database", f"{backend_name} {version(store)}"))
    return Plans(store)


def version(store: Store) -> str:
    return ".".join(map(str, store.engine.dialect.server_version_info))


NAMED = {"in_worker": 1, "in_worker_name": "w"}
CLAIM = {
    **NAMED,
    "in_queue": "q1",
    "in_priority": START[0],
    "in_cursor_run_at": START[1],
    "in_cursor_id": START[2],
}


@pytest.mark.parametrize("limit", [1, 20, 500])
def test_a_claim_reads_the_index_of_claims(plans: Plans, limit: int) -> None:
    made, on_sqlite = plans.store.statements, plans.store.backend.single_writer
    statement = made.claimable_text if on_sqlite else made.claim
    plan = plans.of(statement, {**CLAIM, "in_limit": limit})
    assert uses(plan, *(["claim"] if on_sqlite else ["claim", "ctid"]))
    if limit < WAITING // 6:  # Where it takes all that there is, sorting it may be cheaper.
        assert "Sort" not in plan.shown and "TEMP B-TREE" not in plan.shown, plan.shown


@pytest.mark.databases("sqlite")
def test_jobs_that_were_found_are_claimed_by_the_primary_key(plans: Plans) -> None:
    given = plans.store.backend.batch_parameters(IDS, [(id_,) for id_ in range(1, 501)])
    values = {**NAMED, **given, "in_started_at": START[1]}
    assert uses(plans.of(plans.store.statements.claim_found, values), "pkey")


@pytest.mark.parametrize("count", [1, 20, 500])
def test_jobs_of_lanes_are_claimed_by_the_primary_key(plans: Plans, count: int) -> None:
    given = plans.store.backend.batch_parameters(IDS, [(id_,) for id_ in range(1, count + 1)])
    plan = plans.of(lane_statements(plans.store.backend).claim, {**NAMED, **given})
    assert uses(plan, *(["pkey"] if plans.on_sqlite else ["pkey", "ctid"]))


@pytest.mark.parametrize("limit", [1, 20])
def test_a_claim_of_the_head_reads_the_index_of_claims_in_its_order(
    plans: Plans, limit: int
) -> None:
    plan = plans.of(plans.store.statements.claim_first, {**CLAIM, "in_limit": limit})
    assert uses(plan, "claim", "pkey" if plans.on_sqlite else "ctid")
    assert "Sort" not in plan.shown and "TEMP B-TREE" not in plan.shown, plan.shown


def test_the_next_queues_read_the_index_of_claims(plans: Plans) -> None:
    values = {**CLAIM, "in_queue": "", "in_limit": 1000}
    assert uses(plans.of(plans.store.statements.next_queues, values), "claim", "pkey")
    given = plans.store.backend.batch_parameters(NAMES, [("q1",), ("none",)])
    assert looks_up(plans.of(plans.store.statements.heads, given), "(queue=")


@pytest.mark.parametrize("end", [(), END_OF_CLAIMS], ids=["cursors", "ranges"])
@pytest.mark.parametrize("share", [1, 20])
@pytest.mark.parametrize("count", [2, 500])
def test_a_claim_of_many_queues_reads_the_index_of_claims_in_its_order(
    plans: Plans, end: tuple[Any, ...], share: int, count: int
) -> None:
    rows = [(f"q{n}", *START, *end) for n in range(count)]
    given = plans.store.backend.batch_parameters(RANGES if end else CURSORS, rows)
    values = {**NAMED, **given, "in_share": share, "in_limit": 500}
    made = plans.store.statements
    of_queues, of_ranges = (
        (made.claimable_text_of_queues, made.claimable_text_of_ranges)
        if plans.store.backend.single_writer
        else (made.claim_queues, made.claim_ranges)
    )
    plan = plans.of(of_ranges if end else of_queues, values)
    assert uses(plan, "claim", "pkey" if plans.on_sqlite else "ctid")
    # SQLite sorts the few that it has found: the best of each queue, by their places.
    assert re.findall(r"(?m)^(.*)TEMP B-TREE", plan.shown) in ([], ["USE "]), plan.shown
    sorts = re.findall(r"Sort Key: (.*)", plan.shown)
    assert sorts in ([], ["input.place"]), plan.shown


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("count", [2, 500])
def test_jobs_of_many_queues_are_found_in_order_without_a_sort(plans: Plans, count: int) -> None:
    given = plans.store.backend.batch_parameters(CURSORS, [(f"q{n}", *START) for n in range(count)])
    values = {**NAMED, **given, "in_share": 20, "in_limit": 500}
    plan = plans.of(plans.store.statements.claimable_text_of_queues, values)
    assert uses(plan, "claim", "pkey")
    assert "TEMP B-TREE" not in plan.shown, plan.shown


@pytest.mark.parametrize(("kind", "index"), [("FREE", "claim"), ("KEYS", "lane")])
def test_a_look_behind_paused_jobs_reads_an_index_in_order(plans: Plans, kind: str, index: Any):
    paused, cursors = PausedJobs(plans.store, Searched[kind], "q1"), {("q1", 0): START}
    works = (
        lambda connection: paused.levels(connection, ["q1"]),
        lambda connection: paused.look(connection, cursors, 100),
        lambda connection: paused.ahead(connection, cursors, 100),
    )
    levels, look, ahead = plans.of_each(lambda connection: [work(connection) for work in works])
    assert uses(levels, index) and uses(look, index, "pkey") and uses(ahead, "claim", "pkey")
    assert not re.search("Sort|TEMP B-TREE", shown := look.shown + ahead.shown), shown


@pytest.mark.databases("sqlite")
def test_the_end_of_a_queue_is_found_without_reading_its_jobs(plans: Plans) -> None:
    instructions = 0

    def count() -> None:
        nonlocal instructions
        instructions += 1

    with plans.store.read() as connection:
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(count, 1)
        heads = Claims(plans.store).next_queues(connection, "q1", limit=2)
        driver.set_progress_handler(None, 1)
    assert [head.queue for head in heads] == ["q1", "q2"]
    assert instructions < WAITING // 6


def pack(plans: Plans, columns: Any, count: int, *rest: Any) -> dict[str, Any]:
    rows = [(id_, 1, *rest)[: len(columns)] for id_ in plans.running[:count]]
    return NAMED | plans.store.backend.batch_parameters(columns, rows)


@pytest.mark.parametrize("count", [1, RUNNING])
def test_outcomes_are_written_by_the_primary_key(plans: Plans, count: int) -> None:
    made = plans.store.statements
    ended = ("scheduled", 1.0, 0, 0, None, None, None)
    statements = [
        (made.succeed, pack(plans, SUCCESS, count, "1", None)),
        (made.complete, pack(plans, END, count, *ended)),
        (made.already_completed, pack(plans, PAIRS, count)),
        (made.save_progress, pack(plans, PROGRESS, count, 0.5, None)),
    ]
    if plans.store.backend.single_writer:
        results = NAMED | {"in_claimed": 1, "in_results": '{"1": "1"}'}
        statements.append((made.succeed_batch, results))
    assert all(uses(plans.of(statement, values), "pkey") for statement, values in statements)


def test_a_batch_of_outcomes_as_long_as_can_be_is_written_by_the_primary_key(plans: Plans) -> None:
    rows = [(id_, 1, "1") for id_ in range(1, plans.store.backend.batch_max + 1)]
    values = NAMED | plans.store.backend.batch_parameters(SUCCESS, rows)
    assert uses(plans.of(plans.store.statements.succeed, values), "pkey")


@pytest.mark.databases("postgres")
@pytest.mark.parametrize("count", [1, RUNNING, 500])
def test_successes_are_written_and_counted_by_the_primary_key(plans: Plans, count: int) -> None:
    rows = [(id_, 1, "1") for id_ in range(1, count + 1)]
    counted = [("q1", f"t{n}", count, 0, 0, 0, count, 1.0, 0.1, 1.0, 0.1) for n in range(count)]
    backend = plans.store.backend
    values = backend.batch_parameters(SUCCESS, rows) | backend.batch_parameters(COUNTS, counted)
    statement = plans.store.statements.succeed_and_count
    assert uses(plans.of(statement, NAMED | values | {"in_expected": count}), "pkey")


def test_a_job_is_finished_within_a_transaction_by_the_primary_key(plans: Plans) -> None:
    values = {"in_job": plans.running[0], "in_claimed": 1, "in_result": "1"} | NAMED
    assert uses(plans.of(plans.store.statements.finish_within, values), "pkey")


def test_wishes_to_cancel_are_found_by_the_index_of_held_jobs(plans: Plans) -> None:
    assert uses(plans.of(plans.store.statements.cancel_requests, {"in_worker": 1}), "held")


def test_orphans_are_found_by_the_index_of_held_jobs(plans: Plans) -> None:
    assert uses(plans.of(plans.store.statements.reap, {"in_limit": 500}), "held", "pkey")


def test_due_jobs_are_found_by_the_index_of_due_times(plans: Plans) -> None:
    due = plans.of(plans.store.statements.promote, {"in_limit": 500})
    assert uses(due, "due", "pkey")
    assert looks_up(due, "run_at<")
    assert uses(plans.of(plans.store.statements.next_due), "due", "expires", "awaits", "unique")


def test_jobs_that_expire_are_found_by_their_index(plans: Plans) -> None:
    assert uses(plans.of(plans.store.statements.expire, {"in_limit": 500}), "expires", "pkey")


def test_jobs_of_one_error_are_found_by_the_index_of_errors_in_its_order(plans: Plans) -> None:
    wanted = JobFilter(error="add E1", state=State.FAILED)

    def work(connection: Connection) -> None:
        rows = Jobs(within(plans, connection))
        assert len(list(rows.find(wanted, 30, page=20))) == 30
        rows.delete(wanted)

    works = [plan for plan in plans.of_each(work) if "jobqueue_attempts_error" in plan.shown]
    assert len(works) == 3  # Two pages, and those to be deleted.
    for plan in works:
        assert uses(plan, "pkey")
        assert "Sort" not in plan.shown and "TEMP B-TREE" not in plan.shown, plan.shown


def test_a_waiting_holder_is_changed_by_the_unique_index(plans: Plans) -> None:
    job = NewJob("t", "q", 0, "{}", None, None, None, 1, None, None, "k", "finished")
    values = conflict_parameters(job, Conflict("replace"))
    statements = plans.store.statements
    for change in (statements.replace, statements.reschedule):
        assert uses(plans.of(change, values), "unique")
    for change in (statements.replace_successor, statements.reschedule_successor):
        assert uses(plans.of(change, values), "awaits")
    assert uses(plans.of(statements.waiters_of_free_keys, {"in_limit": 500}), "awaits", "unique")


def test_holders_of_keys_are_found_by_the_unique_index(plans: Plans) -> None:
    keys = {"in_keys": [f"k{n}" for n in range(20)]}
    assert uses(plans.of(plans.store.statements.unique_key_holders, keys), "unique")


def test_a_beat_touches_no_job(plans: Plans) -> None:
    values = {"in_worker": 1, "in_running": 0, "in_processed": 0, "in_errored": 0}
    assert uses(plans.of(plans.store.statements.renew_lease, {**values, "in_concurrency": 4}))


def test_pruning_reads_the_index_of_final_jobs(plans: Plans) -> None:
    works = plans.of_each(
        lambda connection: Maintenance(within(plans, connection)).prune(State.FAILED, -9.0)
    )
    about_jobs = [plan for plan in works if plan.indexes]
    assert uses(about_jobs[0], "final")
    assert looks_up(about_jobs[0], "finished_at<")
    assert uses(about_jobs[-1], "pkey")


@pytest.mark.parametrize("verb", ["cancel", "retry", "delete"])
def test_operators_verbs_on_named_jobs_use_the_primary_key(plans: Plans, verb: str) -> None:
    wanted = JobFilter(ids=(5, plans.running[0] - 1, 10**9))
    works = plans.of_each(lambda connection: getattr(Jobs(within(plans, connection)), verb)(wanted))
    assert [plan.scans for plan in works] == [[]] * len(works)


def test_a_job_is_looked_up_by_the_primary_key(plans: Plans) -> None:
    works = plans.of_each(lambda connection: Jobs(within(plans, connection)).get(7))
    assert uses(works[0], "pkey")


@pytest.mark.parametrize(
    ("wanted", "indexes"),
    [
        (JobFilter(), {"pkey"}),
        (JobFilter(task="add"), {"pkey"}),
        (JobFilter(state=State.FAILED), {"pkey", "final"}),
        (JobFilter(state=State.FAILED, task="add"), {"pkey", "final"}),
        (JobFilter(state=State.SCHEDULED), {"pkey", "due"}),
        (JobFilter(state=State.AVAILABLE), {"pkey", "claim", "lane"}),
        (JobFilter(state=State.AVAILABLE, queue="q1"), {"pkey", "claim", "lane"}),
        (JobFilter(state=State.RUNNING), {"pkey", "held"}),
    ],
)
def test_a_page_of_jobs_and_its_count_read_indexes_only(
    plans: Plans, wanted: JobFilter, indexes: set[str]
) -> None:
    def read(connection: Connection) -> None:
        pages = JobPages(Jobs(within(plans, connection)))
        pages.page(wanted)
        if is_counted(wanted):
            pages.count(wanted)

    works = plans.of_each(read)
    assert [plan.scans for plan in works] == [[]] * len(works)
    used = {index.removeprefix("jobqueue_jobs_") for plan in works for index in plan.indexes}
    assert used - {"lane_new"} == indexes, [plan.shown for plan in works]
    # Only what is read in the order of the ids is found by them.
    counts = [plan for plan in works if "Aggregate" in plan.shown or "SCAN anon" in plan.shown]
    if wanted.state is not None:
        assert all("jobqueue_jobs_pkey" not in plan.indexes for plan in counts[-1:])


def test_waiting_jobs_are_counted_by_task_from_their_indexes(plans: Plans) -> None:
    works = plans.of_each(lambda connection: Monitor(within(plans, connection)).tasks())
    assert [plan.scans for plan in works] == [[]] * len(works)


def test_the_names_in_use_are_found_without_a_scan_of_the_jobs(plans: Plans) -> None:
    works = plans.of_each(lambda connection: names_in_use(within(plans, connection)))
    newest, plain, of_lanes = [plan for plan in works if plan.indexes]
    assert uses(newest, "pkey")
    assert uses(plain, "claim")
    assert uses(of_lanes, "lane")
    assert [plan.scans for plan in works] == [[]] * len(works)


@pytest.mark.parametrize("key", [None, "k"], ids=["plain", "of a key"])
@pytest.mark.parametrize("switches", [{}, {"max_running": 900}], ids=["no limit", "limit"])
def test_why_reads_indexes_only_and_a_bounded_number_of_jobs(
    plans: Plans, key: str | None, switches: dict[str, int]
) -> None:
    def why(connection: Connection) -> None:
        last = select(func.max(jobs.c.id)).where(jobs.c.state == "available")
        id_ = connection.execute(last).scalar_one()
        connection.execute(update(jobs).where(jobs.c.id == id_).values(lane=key, queue="q1"))
        connection.execute(insert(queues).values(name="q1", **switches))
        connection.execute(update(workers).values(tasks='["add"]', heartbeat_at=after(0.0)))
        seen.append(explain(Jobs(within(plans, connection)), id_))

    seen: list[Explanation | None] = []
    works = [plan for plan in plans.of_each(why)[4:] if "jobqueue_jobs" in plan.shown]
    assert seen[0] is not None
    assert seen[0].code == ("behind" if key is None or switches else "claimable")
    assert [plan.scans for plan in works] == [[]] * len(works)
    used = {index.removeprefix("jobqueue_jobs_") for plan in works for index in plan.indexes}
    of_key = {"lane", "lane_begun"} if key else set()
    plain = {"claim"} if key is None or switches else set()
    assert used == {"pkey"} | of_key | plain | ({"held"} if switches else set())
    for plan in works:
        of_one_job = "jobqueue_pauses" in plan.shown and plan.indexes == {"jobqueue_jobs_pkey"}
        if not of_one_job and ("Sort" in plan.shown or "TEMP B-TREE" in plan.shown):
            assert {"jobqueue_jobs_lane_begun", "jobqueue_jobs_held"} & plan.indexes, plan.shown
