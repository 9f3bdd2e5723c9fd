"""kill -9: no job is lost, none has two results, and it does not take long."""

from collections import defaultdict

from processes import Scene, app

JOBS, KILLS = 200, 5
AGAIN_WITHIN = 6.0  # seconds: three times the promise for one host


def test_a_job_survives_kill_9_of_its_workers_and_has_one_result(scene: Scene, wait_until) -> None:
    effects = scene.effects
    workers = scene.workers(3, concurrency=6)
    ids = scene.many("work", [(0.2 + number % 4 * 0.1,) for number in range(JOBS)])
    killed: dict[int, float] = {}
    for number in range(KILLS):
        victim = workers[number % 3]
        wait_until(
            lambda: (
                len(effects.read("finished")) > number * JOBS // 8
                and effects.read("started", pid=victim.pid)
            )
        )
        victim.kill()
        killed[victim.pid] = app.boottime()
        workers[number % 3] = scene.launch(concurrency=6)
    wait_until(scene.ended(JOBS), 60)

    starts = defaultdict(list)
    for effect in effects.read("started"):
        starts[effect.job].append(effect)
    for id_ in ids:
        record, attempts = scene.record(id_), scene.attempts(id_)
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
        for before, after in zip(starts[id_], starts[id_][1:]):
            assert after.at - max(before.at, killed[before.pid]) <= AGAIN_WITHIN
    cut_off = [effect for pid in killed for effect in effects.read("started", pid=pid)]
    assert sum(len(scene.attempts(id_)) > 1 for id_ in {effect.job for effect in cut_off}) >= KILLS
