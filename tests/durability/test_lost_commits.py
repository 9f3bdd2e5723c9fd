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


def execute(scenario: ProcessScenario, *statements: str) -> None:
    engine = scenario.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.databases("postgres")
def test_jobs_whose_ends_a_crash_of_the_server_took_back_are_run_again(
    scenario: ProcessScenario, server: Any, wait_until
) -> None:
    execute(
        scenario,
        "ALTER SYSTEM SET synchronous_commit = off",
        "ALTER SYSTEM SET wal_writer_delay = '10s'",
        "ALTER SYSTEM SET wal_writer_flush_after = '1GB'",
        "SELECT pg_reload_conf()",
    )
    scenario.worker(**PATIENT, concurrency=5)
    jobs = scenario.many("hold", [("finish",)] * 4)
    [once] = scenario.many("hold", [("finish",)], max_attempts=1)
    wait_until(lambda: len(scenario.effects.read("started")) == 5)
    # A commit that waits for the disk takes all that was written before it along: the claims.
    execute(scenario, "SET synchronous_commit = on; CREATE TABLE synced ()")
    scenario.effects.open_gate("finish")
    wait_until(scenario.ended(5))
    scenario.jobs.close()
    scenario.engine.dispose()
    server.stop("immediate")
    server.start()
    wait_until(lambda: scenario.states().get("running", 0) == 0, BOUND)
    wait_until(scenario.ended(4), BOUND)
    record = scenario.record(once)
    assert (record.state, record.reason) == ("failed", "interrupted")
    assert [attempt.outcome for attempt in scenario.attempts(once)] == ["interrupted"]
    starts = sorted(effect.job for effect in scenario.effects.read("started"))
    assert starts == sorted([*jobs, *jobs, once])  # The server lost a commit: nobody else can know.


def test_jobs_that_are_set_back_by_hand_to_running_are_run_by_their_worker(
    scenario: ProcessScenario, wait_until
) -> None:
    tune = PATIENT["tune"] | {"claim.claim_reconciler.INTERVAL": 1}
    scenario.worker(**PATIENT | {"tune": tune})
    ids = scenario.many("work", [(0.0,)] * 3)
    wait_until(scenario.ended(3))
    with scenario.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE jobqueue_jobs SET state = 'running', fence = fence - 1, finished_at = NULL,"
                " worker_id = (SELECT id FROM jobqueue_workers)"
            )
        )
    wait_until(lambda: len(scenario.effects.read("started")) == 6, BOUND)
    wait_until(scenario.ended(3))
    assert [scenario.record(id_).attempt for id_ in ids] == [1, 1, 1]
