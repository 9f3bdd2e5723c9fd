"""A database that takes back commits which it had answered: no job stays `running` in the name of a worker that forgot it."""

from typing import Any

import pytest
from processes import PATIENT, ProcessScenario
from sqlalchemy import text

BOUND = 3 * 15  # seconds: three times what is promised


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Any:
    """A server whose commits reach the disk only when one of them asks for it."""
    return request.getfixturevalue("own_postgres")


@pytest.fixture
def url(url: str, backend_name: str, request: pytest.FixtureRequest) -> str:
    """As everywhere, but on Postgres in a server that may be stopped."""
    return request.getfixturevalue("server").url if backend_name == "postgres" else url


def execute(scene: ProcessScenario, *statements: str) -> None:
    engine = scene.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.databases("postgres")
def test_jobs_whose_ends_a_crash_of_the_server_took_back_are_run_again(
    scene: ProcessScenario, server: Any, wait_until
) -> None:
    execute(
        scene,
        "ALTER SYSTEM SET synchronous_commit = off",
        "ALTER SYSTEM SET wal_writer_delay = '10s'",
        "ALTER SYSTEM SET wal_writer_flush_after = '1GB'",
        "SELECT pg_reload_conf()",
    )
    scene.worker(**PATIENT, concurrency=5)
    jobs = scene.many("hold", [("finish",)] * 4)
    [once] = scene.many("hold", [("finish",)], max_attempts=1)
    wait_until(lambda: len(scene.effects.read("started")) == 5)
    # A commit that waits for the disk takes all that was written before it along: the claims.
    execute(scene, "SET synchronous_commit = on; CREATE TABLE synced ()")
    scene.effects.open_gate("finish")
    wait_until(scene.ended(5))
    scene.jobs.close()
    scene.engine.dispose()
    server.stop("immediate")
    server.start()
    wait_until(lambda: scene.states().get("running", 0) == 0, BOUND)
    wait_until(scene.ended(4), BOUND)
    record = scene.record(once)
    assert (record.state, record.reason) == ("failed", "interrupted")
    assert [attempt.outcome for attempt in scene.attempts(once)] == ["interrupted"]
    starts = sorted(effect.job for effect in scene.effects.read("started"))
    assert starts == sorted([*jobs, *jobs, once])  # The server lost a commit: nobody else can know.


def test_jobs_that_are_set_back_by_hand_to_running_are_run_by_their_worker(
    scene: ProcessScenario, wait_until
) -> None:
    tune = PATIENT["tune"] | {"claim.reconcile.INTERVAL": 1}
    scene.worker(**PATIENT | {"tune": tune})
    ids = scene.many("work", [(0.0,)] * 3)
    wait_until(scene.ended(3))
    with scene.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE jobqueue_jobs SET state = 'running', fence = fence - 1, finished_at = NULL,"
                " worker_id = (SELECT id FROM jobqueue_workers)"
            )
        )
    wait_until(lambda: len(scene.effects.read("started")) == 6, BOUND)
    wait_until(scene.ended(3))
    assert [scene.record(id_).attempt for id_ in ids] == [1, 1, 1]
