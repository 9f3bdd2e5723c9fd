"""What `doctor` finds: each check is provoked, and a queue in order has none."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
import shlex
from typing import Any

import psycopg
import pytest
from sqlalchemy import insert, make_url, text, update

from jobqueue.config import WORKER
from jobqueue.doctor_findings import Finding
from jobqueue.schedules.definition import CODE, Definition
from jobqueue.states import State
from jobqueue.store import doctor, queue_health
from jobqueue.store.claims import WorkerRef
from jobqueue.store.clock import after
from jobqueue.store.database import Store
from jobqueue.store.dialects import postgres_health, sqlite_health
from jobqueue.store.doctor import examine
from jobqueue.store.schema import queues, redactions, schedules, workers
from tests.store.conftest import StoreKit

HOUR = 3600.0


def execute(kit: StoreKit, statement: Any) -> None:
    with kit.store.write() as connection:
        connection.execute(statement)


def worker(kit: StoreKit, name: str = "w1", **given: Any) -> WorkerRef:
    """A worker that is alive for as long as a test may take."""
    return kit.worker(name, **{"lease": HOUR, **given})


def findings(kit: StoreKit, **given: Any) -> list[Finding]:
    return examine(kit.store, **given).findings


def only(kit: StoreKit, **given: Any) -> Finding:
    [found] = findings(kit, **given)
    assert found.remedy
    return found


def test_a_queue_in_order_has_no_finding(kit: StoreKit) -> None:
    holder = worker(kit)
    for state in State:
        kit.put(state, holder, timeout=HOUR)
    diagnosis = examine(kit.store)
    assert (diagnosis.findings, diagnosis.sentence) == ([], "nothing found: 16 checks")


def test_a_database_that_is_away_and_one_without_a_queue_are_found(
    empty_url: str, backend_name: str
) -> None:
    store = Store(empty_url)
    [found] = examine(store).findings
    assert found.check == "schema"
    assert found.sentence.startswith("there is no queue in ")
    assert found.remedy == "jobqueue db upgrade"
    store.close()
    away = Store("postgresql://user:secret@127.0.0.1:1/none")
    [found] = examine(away).findings
    assert found.check == "database" and "cannot be reached" in found.sentence
    assert "secret" not in found.sentence


@pytest.mark.databases("postgres")
def test_a_role_without_rights_is_not_a_database_that_is_away(kit: StoreKit, url: str) -> None:
    role = make_url(url).database
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        try:
            store = Store(make_url(url).set(username=role).render_as_string(hide_password=False))
            [found] = examine(store).findings
            store.close()
        finally:
            connection.execute(f"DROP ROLE {role}")
    assert found.check == "database" and "says: permission denied for " in found.sentence
    assert "docs/roles.md" in found.remedy


def test_a_schema_of_another_version_is_found(kit: StoreKit, monkeypatch: Any) -> None:
    monkeypatch.setattr(doctor, "REVISION", "9999")
    found = only(kit)
    assert (found.check, found.remedy) == ("schema", "jobqueue db upgrade")
    assert found.sentence.endswith("this jobqueue needs 9999")


@pytest.mark.parametrize(("seconds", "where"), [(65.0, "ahead of"), (-65.0, "behind")])
def test_a_clock_that_is_off_is_found(kit: StoreKit, seconds: float, where: str) -> None:
    found = only(kit, clock=lambda: datetime.now(UTC) + timedelta(seconds=seconds))
    assert found.check == "clock" and f" s {where} the database's" in found.sentence


def test_a_missing_index_is_found_with_the_statement_that_makes_it(kit: StoreKit) -> None:
    execute(kit, text("DROP INDEX jobqueue_jobs_due"))
    found = only(kit)
    assert (found.check, found.names) == ("missing_index", ("jobqueue_jobs_due",))
    execute(kit, text(found.remedy.rstrip(";")))
    assert findings(kit) == []


def test_a_queue_that_no_worker_serves_is_found(kit: StoreKit) -> None:
    kit.add(queue="mail")
    assert "no worker is alive, and jobs wait in queue mail" in only(kit).sentence
    worker(kit, queues=("other",))
    found = only(kit)
    assert (found.check, found.names) == ("unserved_queues", ("mail",))
    assert (found.sentence, found.remedy) == (
        "no live worker serves queue mail, where jobs wait",
        "jobqueue worker --app MODULE:NAME --queues mail",
    )
    second = worker(kit, "w2")
    assert findings(kit) == []
    kit.leases.note_stop(second.id)
    found = only(kit)
    assert (found.check, found.names) == ("unserved_queues", ("mail",))
    assert found.sentence == "only workers that are draining serve queue mail, where jobs wait"


def test_a_task_that_no_worker_knows_is_found(kit: StoreKit) -> None:
    worker(kit)
    kit.add(), kit.add(task="stranger"), kit.add(task="later", delay=HOUR)
    found = only(kit)
    assert (found.check, found.names) == ("unknown_tasks", ("later", "stranger"))
    assert found.sentence == "jobs wait for tasks later, stranger, which no live worker knows"


def test_a_job_that_has_been_due_for_long_is_found(kit: StoreKit) -> None:
    worker(kit)
    late, held, stuck = kit.add(), kit.add(queue="held"), kit.add(delay=HOUR)
    kit.change(late, held, run_at=after(-3 * HOUR))
    kit.pause("held")
    found = only(kit)
    assert (found.check, found.remedy) == ("due_for_long", f"jobqueue why {late}")
    assert found.sentence == f"job {late} (add) is next in queue default, and has been due for 3 h"
    kit.change(late, run_at=after(0.0))
    kit.change(stuck, run_at=after(-2 * HOUR))
    assert only(kit).names == (str(stuck),)


def test_a_handler_that_is_stuck_is_found(kit: StoreKit) -> None:
    holder = worker(kit)
    over, quiet, fine = (kit.put(State.RUNNING, holder, timeout=t) for t in (60.0, None, 9999.0))
    kit.change(over, fine, started_at=after(-HOUR))
    kit.change(quiet, started_at=after(-5 * HOUR), progress_at=after(-2 * HOUR))
    found = only(kit)
    assert (found.check, found.names) == ("stuck_handlers", (str(over), str(quiet)))
    assert found.sentence == (
        f"job {over} (add) on w1 has run for 1 h, over its timeout of 60 s, and 1 more are stuck"
    )
    kit.change(over, started_at=after(0.0))
    assert "has reported no progress for 2 h" in only(kit).sentence


def test_a_lost_worker_is_found_and_what_it_held(kit: StoreKit) -> None:
    holder = worker(kit)
    kit.put(State.RUNNING, holder)
    execute(kit, update(workers).values(heartbeat_at=after(-120.0), lease=30.0))
    found = only(kit)
    assert (found.check, found.names) == ("lost_workers", ("w1",))
    assert found.sentence == "worker w1 on here has been silent for 2 min, with 1 job"
    kit.leases.deregister(holder.id)
    assert "1 job of workers that are gone" in only(kit).sentence
    worker(kit, "w2")
    assert findings(kit) == []


def test_schedules_that_differ_or_are_orphaned_are_found(kit: StoreKit) -> None:
    worker(kit)
    definition = Definition(
        "add", "every", "3600", None, '{"args":[],"kwargs":{}}', None, "latest", "skip"
    )
    values = vars_of(definition) | {"source": CODE, "next_at": after(HOUR)}
    execute(kit, insert(schedules).values(name="same", **values, declared=definition.to_text()))
    assert findings(kit) == []
    execute(kit, update(schedules).values(expression="60"))
    found = only(kit)
    assert (found.check, found.remedy) == ("schedules", "jobqueue schedules reset same")
    execute(kit, update(schedules).values(expression="3600", orphaned_at=after(0.0)))
    assert only(kit).sentence == (
        "schedule same makes no jobs: the code does not declare it any more"
    )
    execute(kit, update(schedules).values(orphaned_at=None, task="gone", declared=None))
    assert "no live worker knows its task gone" in only(kit).sentence
    execute(kit, schedules.delete())


def vars_of(definition: Definition) -> dict[str, Any]:
    return {name: getattr(definition, name) for name in definition.__dataclass_fields__}


def test_limits_of_0_are_found(kit: StoreKit) -> None:
    worker(kit)
    held = kit.add()
    kit.change(held, lane="k", lane_limit=0)
    execute(kit, insert(queues).values(name="mail", max_running=0))
    of_queue, of_key = findings(kit)
    assert of_queue.check == of_key.check == "limits_of_0"
    assert of_queue.remedy == "jobqueue queues limit mail none"
    assert of_key.names == (str(held),)


def test_a_retention_that_is_off_is_found_where_there_are_many_rows(
    kit: StoreKit, monkeypatch: Any
) -> None:
    old = kit.put(State.SUCCEEDED)
    kit.put(State.SUCCEEDED)
    monkeypatch.setattr(queue_health, "ROWS_MANY", 2)
    kit.leases.deregister(1), execute(kit, workers.delete())
    assert findings(kit) == []
    kit.change(old, finished_at=after(-40 * 24 * HOUR))
    found = only(kit)
    assert found.check == "retention" and "oldest succeeded 40 days ago" in found.sentence


def test_what_a_task_hides_is_found_where_the_database_does_not_say_it(kit: StoreKit) -> None:
    good = {"task": "fine", "hidden": '[["token"], [0], null]'}
    execute(kit, insert(redactions).values([good, {"task": "it's", "hidden": "[]"}]))
    found = only(kit)
    assert (found.check, found.names) == ("redactions", ("it's",))
    execute(kit, text(found.remedy.partition(";")[0]))
    assert findings(kit) == []
    execute(kit, redactions.delete())


# What one database alone has


@pytest.mark.databases("sqlite")
def test_a_file_on_a_network_drive_is_found(kit: StoreKit, tmp_path: Any, monkeypatch: Any) -> None:
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(sqlite_health, "MOUNTS", mounts)
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nnas:/a {tmp_path} nfs4 rw 0 0\n")
    found = only(kit)
    assert found.check == "network_drive" and "(nfs4)" in found.sentence
    for local in ("ext4", "fuse.mergerfs"):
        mounts.write_text(f"nas:/a / nfs4 rw 0 0\n/dev/sdb {tmp_path} {local} rw 0 0\n")
        assert findings(kit) == []


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(("version", "is_bad"), [((3, 51, 2), True), ((3, 51, 3), False)])
def test_a_library_with_the_wal_reset_bug_is_found_where_processes_share_the_file(
    kit: StoreKit, monkeypatch: Any, version: tuple[int, ...], is_bad: bool
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    worker(kit), worker(kit, "w2")
    assert findings(kit) == []  # Both in one process.
    worker(kit, "w3", pid=2)
    assert [found.check for found in findings(kit)] == ["wal_reset_bug"] * is_bad


@pytest.mark.databases("sqlite")
def test_a_log_that_cannot_be_moved_into_the_file_is_found(
    kit: StoreKit, second_store: Callable[..., Store], monkeypatch: Any
) -> None:
    monkeypatch.setattr(sqlite_health, "WAL_HELD", 0)
    with second_store().read() as reader:
        reader.execute(text("SELECT count(*) FROM jobqueue_jobs"))
        kit.put(State.SUCCEEDED)
        execute(kit, workers.delete())
        found = only(kit)
    assert found.check == "held_snapshot" and "write-ahead log" in found.sentence
    assert findings(kit) == []


@pytest.mark.databases("postgres")
def test_a_transaction_that_is_open_for_long_is_found(
    kit: StoreKit, second_store: Callable[..., Store], monkeypatch: Any
) -> None:
    monkeypatch.setattr(postgres_health, "SNAPSHOT_SECONDS", 0.0)
    with second_store().read() as reader:
        (pid,) = reader.execute(text("SELECT pg_backend_pid()")).one()
        found = only(kit)
    assert (found.check, found.names) == ("held_snapshot", (str(pid),))
    assert "(jobqueue) is idle in transaction" in found.sentence
    assert found.remedy == f"SELECT pg_terminate_backend({pid});"


@pytest.mark.databases("postgres")
def test_a_vacuum_that_is_far_behind_is_found(kit: StoreKit, monkeypatch: Any) -> None:
    monkeypatch.setattr(postgres_health, "DEAD_ROWS", 5)
    execute(kit, text("ALTER TABLE jobqueue_queues SET (autovacuum_enabled = false)"))
    kit.pause("q")
    for _ in range(10):
        execute(kit, update(queues).values(paused_at=after(0.0)))
    with kit.store.engine.connect() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    found = next(each for each in findings(kit) if each.names == ("jobqueue_queues",))
    assert (found.check, found.remedy) == ("vacuum", "VACUUM (ANALYZE) jobqueue_queues;")


@pytest.mark.databases("postgres")
def test_an_invalid_index_is_found(kit: StoreKit) -> None:
    invalid = "UPDATE pg_index SET indisvalid = {} WHERE indexrelid = 'jobqueue_jobs_due'::regclass"
    execute(kit, text(invalid.format("false")))
    found = only(kit)
    assert (found.check, found.names) == ("invalid_index", ("jobqueue_jobs_due",))
    execute(kit, text(invalid.format("true")))


def test_a_name_in_a_remedy_is_one_word_of_a_shell(kit: StoreKit) -> None:
    evil = "$(touch /tmp/x); 'a'"

    def remedies() -> list[list[str]]:
        return [shlex.split(each.remedy) for each in findings(kit)]

    id_ = kit.add(queue=evil, task=evil)
    assert remedies() == [[*WORKER.split(), "--queues", evil]]
    worker(kit)
    [words] = remedies()
    assert words[-3:] == ["--task", evil, "--dry-run"]
    kit.change(id_, task="add")
    execute(kit, insert(queues).values(name=evil, max_running=0))
    assert remedies() == [["jobqueue", "queues", "limit", evil, "none"]]
