"""A handler that keeps the interpreter's lock: its worker is silent for longer than its lease, though nobody stopped it."""

import pytest
from processes import PATIENT, ProcessScenario

pytestmark = pytest.mark.slow

LEASE = 1.5
JOBS = 20


def test_a_handler_that_keeps_the_interpreters_lock_for_two_leases_costs_no_other_job(
    scenario: ProcessScenario, wait_until
) -> None:
    effects = scenario.effects
    silent = scenario.worker(lease=LEASE, concurrency=4)
    rescuer = scenario.worker(concurrency=4, **PATIENT)
    scenario.pause_outside_of_a_transaction(rescuer)  # It has come up, but does not take this job.
    (seized,) = scenario.many("seize", [(6 * LEASE,)])
    wait_until(lambda: effects.read("started", pid=silent.pid))
    rescuer.resume()
    ids = scenario.many("work", [(0.01,)] * JOBS)
    wait_until(scenario.ended(JOBS + 1), timeout=60)
    assert set(scenario.states()) == {"succeeded"}
    assert {effect.pid for effect in effects.read("finished", job=seized)} >= {rescuer.pid}
    # Two runs, since its lease ran out; one accepted result, that of the second.
    wait_until(lambda: len(effects.read("finished", job=seized)) == 2)
    assert int(scenario.record(seized).result) > 2, "the fence of a later claim"
    assert [attempt.outcome for attempt in scenario.attempts(seized)] == [
        "lost",
        "succeeded",
    ]
    wait_until(lambda: "lost its lease" in silent.log)
    assert silent.alive, "it goes on with a new lease"
    again = scenario.many("work", [(0.01,)] * JOBS)
    rescuer.terminate()
    assert rescuer.wait() == 0
    wait_until(scenario.ended(2 * JOBS + 1))
    assert all(scenario.record(id_).attempt == 1 for id_ in (*ids, *again))
    silent.terminate()
    assert silent.wait() == 0
