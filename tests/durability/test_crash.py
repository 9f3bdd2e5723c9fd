"""kill -9: no job is lost, none has two results, and it does not take long."""

from collections import defaultdict

import pytest
from processes import ProcessScenario, app

JOBS, KILLS = 200, 5
HELD = 2  # jobs of each victim that cannot have ended when it is killed
AGAIN_WITHIN = 6.0  # seconds: three times the promise for one host


def test_a_job_survives_kill_9_of_its_workers_and_has_one_result(
    scenario: ProcessScenario, wait_until
) -> None:
    effects = scenario.effects
    queues = [f"own-{number},default" for number in range(3)]
    workers = [scenario.launch(concurrency=6, queues=queues[number]) for number in range(3)]
    for worker in workers:
        worker.await_ready()
    ids = scenario.many("work", [(0.1 + number % 4 * 0.1,) for number in range(JOBS)])
    cut_off: list[int] = []
    for number in range(KILLS):
        victim, gate = workers[number % 3], f"kill-{number}"
        wait_until(lambda: len(effects.read("finished")) > number * JOBS // 8)
        held = scenario.many("hold", [(gate,)] * HELD, queue=f"own-{number % 3}")
        wait_until(lambda: {effect.job for effect in effects.read("started")} >= set(held))
        victim.kill()
        effects.open_gate(gate)
        cut_off += held
        workers[number % 3] = scenario.launch(concurrency=6, queues=queues[number % 3])
    ids += cut_off
    wait_until(scenario.ended(len(ids)), 60)

    starts = defaultdict(list)
    for effect in effects.read("started"):
        starts[effect.job].append(effect)
    for id_ in ids:
        record, attempts = scenario.record(id_), scenario.attempts(id_)
        assert record.state == "succeeded"
        # Every start was in the name of its own claim; the last one's result is the one that counts.
        fences = [start.fence for start in starts[id_]]
        assert fences == sorted(set(fences))
        assert record.result == str(fences[-1]) == str(record.fence - 1)
        assert [attempt.outcome for attempt in attempts] == ["lost"] * (len(attempts) - 1) + [
            "succeeded"
        ]
        assert set(fences) <= {attempt.fence for attempt in attempts}
        assert (record.attempt, record.crashes) == (1, 0), "what was lost is not charged"
    assert all(len(starts[id_]) > 1 for id_ in cut_off)


@pytest.mark.timing
@pytest.mark.rerun_on_stall
def test_the_jobs_of_a_killed_worker_soon_run_again(scenario: ProcessScenario, wait_until) -> None:
    effects = scenario.effects
    victim, _ = scenario.workers(2, concurrency=HELD)
    scenario.many("hold", [("kill",)] * 2 * HELD)
    wait_until(lambda: len(effects.read("started")) == 2 * HELD)
    held = {effect.job for effect in effects.read("started", pid=victim.pid)}
    victim.kill()
    killed_at = app.boottime()
    effects.open_gate("kill")
    wait_until(scenario.ended(2 * HELD))
    starts = [effect for effect in effects.read("started") if effect.job in held]
    assert len(starts) == 2 * HELD
    assert max(effect.at for effect in starts) - killed_at <= AGAIN_WITHIN
