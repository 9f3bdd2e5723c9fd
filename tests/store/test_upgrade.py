"""An upgrade of a database that is in use, with rows: from the first revision, and from 0003."""

import shutil
from pathlib import Path

import pytest

from jobqueue.errors import SchemaOutdated
from jobqueue.store import migrate
from jobqueue.store.database import Store
from jobqueue.store.jobs import Jobs
from jobqueue.store.audit import Audit
from jobqueue.store.schema import REVISION
from jobqueue.store.stats import Monitor
from jobqueue.store.undo import Undo
from tests.store.conftest import ONLY_POSTGRES

ROWS = (
    "INSERT INTO jobqueue_jobs (task, tags, attempt) VALUES ('add', '[\"one\"]', 1)",
    "INSERT INTO jobqueue_attempts (job_id, fence, attempt, finished_at, outcome, error_type,"
    " error_message) VALUES (1, 1, 1, '2026-01-31 23:59:59+00', 'errored', 'OSError', 'gone')",
    "INSERT INTO jobqueue_workers (name, host, pid, tasks, concurrency, lease)"
    " VALUES ('old', 'h', 7, '[]', 4, 30)",
)
BEFORE_UNDO = (
    "INSERT INTO jobqueue_audit (actor, verb, target, changed)"
    """ VALUES ('ada', 'limit', '{"queue": "mail", "limit": 4}', 1)""",
    "UPDATE jobqueue_workers SET heartbeats = heartbeats + 1 WHERE name = 'old'",
)


@pytest.fixture
def newer() -> str:
    """The pattern of the migrations that the old version did not have."""
    return "000[2-9]*"


@pytest.fixture
def old_store(empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newer: str):
    """A database with an older revision, the first by default, and the store of this version on it."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.folder(), folder, ignore=shutil.ignore_patterns(newer))
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "folder", lambda: folder)
        migrate.upgrade(empty_url)
    store = Store(empty_url)
    yield store
    store.close()


def test_an_upgrade_from_the_first_revision_keeps_its_rows(
    old_store: Store, empty_url: str
) -> None:
    with old_store.backend.writing(old_store.engine) as connection:
        for row in ROWS:
            connection.exec_driver_sql(row)
    with pytest.raises(SchemaOutdated, match="has schema 0001, .* run jobqueue db upgrade"):
        old_store.require_schema()

    assert migrate.upgrade(empty_url) == ("0001", REVISION)
    assert migrate.differences(empty_url) == []
    record = Jobs(old_store).get(1)
    assert record is not None and record.error is not None
    assert (record.task, record.tags, record.error.type) == ("add", ("one",), "OSError")
    shown = record.to_json()
    new = [shown[name] for name in ("headers", "lane", "scheduled_for", "expires_at")]
    assert new == [{}, None, None, None]
    (worker,) = Monitor(old_store).workers()
    assert (worker["worker"], worker["stopping_at"]) == ("old", None)


@pytest.mark.parametrize("newer", ["0005*"])
def test_what_a_version_without_undo_writes_before_and_after_the_upgrade_is_there(
    old_store: Store, empty_url: str
) -> None:
    """Its workers and commands go on beside the new columns."""

    def writes(*statements: str) -> None:
        with old_store.backend.writing(old_store.engine) as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    writes(ROWS[2], *BEFORE_UNDO)
    with old_store.engine.connect() as reader:
        assert (
            "stopping_at"
            not in reader.exec_driver_sql("SELECT * FROM jobqueue_worker_stats").keys()
        )
    migrate.upgrade(empty_url)
    writes(*BEFORE_UNDO)
    (worker,) = Monitor(old_store).workers()
    assert worker["stopping_at"] is None
    rows = Audit(old_store).find(None)
    assert [(row["id"], row["before"], row["about"]) for row in rows] == [
        (2, None, "queue mail, limit 4"),
        (1, None, "queue mail, limit 4"),
    ]
    assert Undo(old_store).offers(Audit(old_store).stored(None)) == {}


FIGURES = (
    "INSERT INTO jobqueue_history (minute, worker, task, processed, errored, failed, snoozed, duration,"
    " duration_p95, wait, wait_p95, busy, slots) VALUES ('2026-01-31 23:59:00+00', 'mia', '{}', 4, 1, 0, 0,"
    " 2.0, 0.9, 1.0, 0.4, 2.0, 4.0)"
)
"""What a worker of 0003 writes each minute."""


@pytest.mark.parametrize("newer", ["000[4-9]*"])
def test_workers_of_0003_write_their_figures_before_and_after_the_upgrade(
    old_store: Store, empty_url: str, backend_name: str
) -> None:
    def write(task: str) -> None:
        with old_store.backend.writing(old_store.engine) as connection:
            connection.exec_driver_sql(FIGURES.format(task))

    with old_store.backend.writing(old_store.engine) as connection:
        connection.exec_driver_sql("CREATE VIEW of_user AS SELECT * FROM jobqueue_task_minutes")
        if backend_name == "postgres":
            connection.exec_driver_sql("GRANT SELECT ON jobqueue_worker_minutes TO PUBLIC")
    write("add")
    assert migrate.upgrade(empty_url) == ("0003", REVISION)
    assert migrate.differences(empty_url) == []
    write("add")
    write("")
    with old_store.read() as connection:
        for view in ("jobqueue_task_minutes", "of_user"):
            (row,) = connection.exec_driver_sql(f"SELECT * FROM {view}").mappings()
            assert (row["processed"], row["p95_duration"], row["p95_wait"]) == (8, 0.9, 0.4)
        (row,) = connection.exec_driver_sql("SELECT * FROM jobqueue_worker_minutes").mappings()
        assert (row["processed"], row["utilisation"]) == (4, 0.5)
        assert [row[name] for name in ("p50_duration", "p50_wait", "waiting")] == [None] * 3
        if backend_name == "postgres":
            granted = connection.exec_driver_sql(
                "SELECT has_table_privilege('public', 'jobqueue_worker_minutes', 'SELECT')"
            )
            assert granted.scalar_one()


@ONLY_POSTGRES
def test_an_upgrade_of_tables_in_use_says_who_holds_them_and_changes_nothing(
    old_store: Store, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_WAIT", 0.0)
    with old_store.engine.connect() as reader:
        reader.exec_driver_sql("SELECT * FROM jobqueue_jobs")
        (pid,) = reader.exec_driver_sql("SELECT pg_backend_pid()").one()
        with pytest.raises(SchemaOutdated, match=f"process {pid} .*, idle in transaction, .*again"):
            migrate.upgrade(empty_url)
    assert old_store.revision() == "0001"


@ONLY_POSTGRES
def test_an_upgrade_is_tried_again_when_the_tables_are_free(
    old_store: Store, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with old_store.engine.connect() as reader:
        reader.exec_driver_sql("SELECT * FROM jobqueue_jobs")
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            reader.rollback()

        monkeypatch.setattr(migrate, "_pause", pause)
        assert migrate.upgrade(empty_url) == ("0001", REVISION)
    assert pauses
