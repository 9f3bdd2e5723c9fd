"""A handler that keeps the interpreter's lock: its worker is silent for longer than its lease, though nobody stopped it."""

from processes import PATIENT, ProcessScenario

LEASE = 1.5
JOBS = 20


def test_a_handler_that_keeps_the_interpreters_lock_for_two_leases_costs_no_other_job(
    scene: ProcessScenario, wait_until
) -> None:
    effects = scene.effects
    silent = scene.worker(lease=LEASE, concurrency=4)
    heir = scene.worker(concurrency=4, **PATIENT)
    scene.pause_outside_of_a_transaction(heir)  # It has come up, but does not take this job.
    (seized,) = scene.many("seize", [(6 * LEASE,)])
    wait_until(lambda: effects.read("started", pid=silent.pid))
    heir.resume()
    ids = scene.many("work", [(0.01,)] * JOBS)
    wait_until(scene.ended(JOBS + 1), timeout=60)
    assert set(scene.states()) == {"succeeded"}
    assert {effect.pid for effect in effects.read("finished", job=seized)} >= {heir.pid}
    # Two runs, since its lease ran out; one accepted result, that of the second.
    wait_until(lambda: len(effects.read("finished", job=seized)) == 2)
    assert int(scene.record(seized).result) > 2, "the fence of a later claim"
    assert [attempt.outcome for attempt in scene.attempts(seized)] == [
        "lost",
        "succeeded",
    ]
    wait_until(lambda: "lost its lease" in silent.log)
    assert silent.alive, "it goes on with a new lease"
    again = scene.many("work", [(0.01,)] * JOBS)
    heir.terminate()
    assert heir.wait() == 0
    wait_until(scene.ended(2 * JOBS + 1))
    assert all(scene.record(id_).attempt == 1 for id_ in (*ids, *again))
    silent.terminate()
    assert silent.wait() == 0
