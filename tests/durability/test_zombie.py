"""A worker that was frozen for longer than its lease: its jobs belong to others, and it can do nothing about them."""

from types import SimpleNamespace

from processes import PATIENT, Process, ProcessScenario, app

LEASE = 1.0
VERBS = ("finish", "fail", "snooze", "progress", "finish_within")
UNBEGUN = 2  # Each runs in a child process of the rescuer's, as it was lost with its worker.
WARM_UP = 100
BEATS = 6  # until its handlers have been told: twice the promise, by the worker's own pace


def tell(scenario: ProcessScenario, wait_until) -> SimpleNamespace:
    effects = scenario.effects
    app.METADATA.create_all(scenario.engine)
    hoards = {
        "claim.planner.STALE_PREFETCH_AGE": 60
    }  # What it claims in advance it keeps, however late we look.
    zombie = scenario.worker(lease=LEASE, concurrency=len(VERBS) + 1, tune=hoards)
    for _ in range(WARM_UP // 20):  # Short jobs teach it to hold some in advance.
        scenario.many("nop", [()] * 20, queue="warm-up")
        wait_until(lambda: not {"available", "running"} & set(scenario.states()))
    holds = [scenario.task("hold").call(verb) for verb in (*VERBS, "watch")]
    ids = [
        job.id
        for job in scenario.jobs.enqueue_many(
            [*holds, *[scenario.task("work").call(0.01)] * UNBEGUN]
        )
    ]
    held, unbegun = ids[: len(holds)], ids[len(holds) :]
    wait_until(lambda: len(effects.read("started")) == len(held))
    wait_until(lambda: running(scenario, unbegun))
    scenario.pause_outside_of_a_transaction(zombie)
    frozen_at = app.boottime()
    claimed = running(scenario, unbegun)
    rescuer = scenario.worker(concurrency=len(VERBS) + 1 + UNBEGUN, **PATIENT)

    everything = len(held) + UNBEGUN
    wait_until(
        lambda: sum(effect.pid != zombie.pid for effect in effects.read("started")) == everything,
        timeout=60,
    )
    wait_until(lambda: app.boottime() - frozen_at > 2.5 * LEASE)
    wait_until(
        lambda: all(
            scenario.record(id_).progress == 0.5
            for id_ in held
            if "progress" in scenario.record(id_).args
        )
    )
    for verb in VERBS:
        effects.open_gate(verb, zombie.pid)
    with scenario.nobody_writes():
        zombie.resume()
        # Its slots are free now, and what it had claimed lies before them. It cannot know yet that it lost its lease.
        wait_until(lambda: len(effects.read("ended", pid=zombie.pid)) >= len(VERBS) - 1)
    beats = beats_until_told(scenario, zombie, wait_until)
    wait_until(lambda: effects.read("reported", pid=zombie.pid))
    effects.open_gate("watch", zombie.pid)
    wait_until(lambda: len(effects.read("ended", pid=zombie.pid)) == len(held))
    zombie.terminate()
    code = zombie.wait()
    story = SimpleNamespace(
        effects=effects,
        held=dict(zip((*VERBS, "watch"), held)),
        claimed=claimed,
        unbegun=unbegun,
        zombie=zombie,
        rescuer=rescuer,
        beats=beats,
        zombie_exit=code,
        zombie_log=zombie.log,
        meanwhile={id_: scenario.record(id_) for id_ in held},
    )
    for verb in (*VERBS, "watch"):
        effects.open_gate(verb)
    wait_until(scenario.ended(everything + WARM_UP))
    story.final = {id_: scenario.record(id_) for id_ in (*held, *unbegun)}
    story.attempts = {id_: scenario.attempts(id_) for id_ in (*held, *unbegun)}
    story.payments = scenario.rows("SELECT job, fence FROM payments")
    return story


def running(scenario: ProcessScenario, ids: list[int]) -> list[int]:
    return [id_ for id_ in ids if scenario.record(id_).state == "running"]


def beats_until_told(scenario: ProcessScenario, zombie: Process, wait_until) -> int:
    """How often the zombie has renewed its new lease while a handler had not been told that the old one was lost."""
    renewals = f"SELECT heartbeats FROM jobqueue_workers WHERE pid = {zombie.pid}"
    beats = 0

    def told() -> bool:
        nonlocal beats
        present = max((row.heartbeats for row in scenario.rows(renewals)), default=0)
        if scenario.effects.read("told", pid=zombie.pid):
            return True
        beats = present
        return False

    wait_until(told)
    return beats


def test_a_worker_that_lost_its_lease_can_do_nothing_about_its_jobs(
    scenario: ProcessScenario, wait_until
) -> None:
    """One story, which is told once; each of the functions looks at another side of it."""
    story = tell(scenario, wait_until)
    for verb in VERBS:
        it_cannot(verb, story)
    its_progress_is_not_written(story)
    its_effects_in_the_database_are_rolled_back(story)
    it_does_not_start_what_it_had_claimed_and_not_begun(story)
    its_handlers_are_told_and_it_goes_on_in_order(story)


def it_cannot(verb: str, story: SimpleNamespace) -> None:
    id_ = story.held[verb]
    meanwhile, final = story.meanwhile[id_], story.final[id_]
    mine, theirs = story.effects.read("started", job=id_)
    assert mine.pid == story.zombie.pid != theirs.pid
    assert theirs.fence > mine.fence
    # After the zombie has said its word, the job is still the rescuer's, and untouched.
    assert (meanwhile.state, meanwhile.fence, meanwhile.attempt) == ("running", theirs.fence, 1)
    assert meanwhile.worker.endswith(f"-{story.rescuer.pid}")
    assert (final.state, final.result, final.fence) == (
        "succeeded",
        str(theirs.fence),
        theirs.fence + 1,
    )
    assert [attempt.outcome for attempt in story.attempts[id_]] == ["lost", "succeeded"]
    assert f"job {id_} (hold): the claim with fence {mine.fence} was lost" in story.zombie_log


def its_progress_is_not_written(story: SimpleNamespace) -> None:
    for record in (story.meanwhile[story.held["progress"]], story.final[story.held["progress"]]):
        assert (record.progress, record.progress_message) == (0.5, "mine")


def its_effects_in_the_database_are_rolled_back(story: SimpleNamespace) -> None:
    assert story.effects.read("ClaimLost", job=story.held["finish_within"], pid=story.zombie.pid)
    assert story.payments == []


def it_does_not_start_what_it_had_claimed_and_not_begun(story: SimpleNamespace) -> None:
    assert story.claimed, "it had claimed nothing in advance: this test shows nothing"
    began = [effect for effect in story.effects.read("started") if effect.job in story.unbegun]
    assert story.zombie.pid not in {effect.pid for effect in began}
    assert sorted(effect.job for effect in began) == story.unbegun


def its_handlers_are_told_and_it_goes_on_in_order(story: SimpleNamespace) -> None:
    (told,) = story.effects.read("told", pid=story.zombie.pid)
    assert told.cancelled
    assert story.beats <= BEATS
    assert "lost its lease" in story.zombie_log
    assert story.zombie_exit == 0
