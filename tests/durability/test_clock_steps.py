"""Wall clocks that jump by an hour: leases run on another clock, so no job changes hands and none runs twice."""

import time

import pytest
from processes import PATIENT, ProcessScenario
from sqlalchemy import text

pytestmark = pytest.mark.slow

HOUR = 3600.0  # longer than the lease, which no stall ends
LONG, SHORT = 4, 10

FAKE_CLOCK = """
CREATE SCHEMA fake;
CREATE TABLE fake.step (seconds double precision);
INSERT INTO fake.step VALUES (0);
CREATE FUNCTION fake.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    $$ SELECT pg_catalog.clock_timestamp() + (SELECT seconds FROM fake.step) * interval '1 second' $$;
"""


def fake_the_databases_clock(scenario: ProcessScenario) -> None:
    """On Postgres, put a clock_timestamp() of ours before the server's. (On SQLite every process has its own.)"""
    with scenario.engine.begin() as connection:
        connection.execute(text(FAKE_CLOCK))
        connection.execute(
            text(
                f"ALTER DATABASE {scenario.engine.url.database} SET search_path = fake, pg_catalog, public"
            )
        )
    scenario.engine.dispose()


@pytest.mark.parametrize("whose", ["one worker's", "everyone's"])
def test_a_step_of_the_wall_clock_changes_no_lease_and_repeats_no_job(
    scenario: ProcessScenario, whose: str, wait_until
) -> None:
    effects = scenario.effects
    clocks = [scenario.folder / "clock-0", scenario.folder / "clock-1"]
    for clock in clocks:
        clock.write_text("0")
    if not scenario.on_sqlite:
        fake_the_databases_clock(scenario)
    workers = [
        scenario.launch(clock=clock, concurrency=LONG + 2, queues=f"default,own-{n}", **PATIENT)
        for n, clock in enumerate(clocks)
    ]
    for worker in workers:
        worker.await_ready()
    leases = scenario.rows("SELECT id FROM jobqueue_workers ORDER BY id")
    assert len(leases) == 2
    ids = scenario.many("hold", [("finish",)] * LONG)
    wait_until(lambda: len(effects.read("started")) == LONG)
    for step in (HOUR, -HOUR):
        for clock in clocks if whose == "everyone's" else clocks[:1]:
            clock.write_text(str(step))
        if whose == "everyone's" and not scenario.on_sqlite:
            with scenario.engine.begin() as connection:
                connection.execute(text(f"UPDATE fake.step SET seconds = {step}"))
        beaten = scenario.beaten(3)  # Beats and, as often, rounds of reapers, after the step.
        (asked,) = scenario.many("clock", [()], queue="own-0")
        ids += [asked, *scenario.many("work", [(0.01,)] * SHORT)]
        wait_until(scenario.ended(len(ids) - LONG))
        assert abs(float(scenario.record(asked).result) - time.time() - step) < 60, (
            "the clock did not step"
        )
        if scenario.on_sqlite or whose == "everyone's":
            age = scenario.record(asked).finished_at.timestamp() - time.time()
            assert abs(age - step) < 60, "the database's clock did not step"
        wait_until(beaten)
    effects.open_gate("finish")
    wait_until(scenario.ended(len(ids)))
    starts = [effect.job for effect in effects.read("started")]
    assert sorted(starts) == sorted(set(starts)) and len(starts) == LONG + 2 * SHORT
    assert scenario.rows("SELECT * FROM jobqueue_attempts") == []
    assert scenario.rows("SELECT id FROM jobqueue_workers ORDER BY id") == leases
    assert not any("lost" in worker.log or "silent" in worker.log for worker in workers)
