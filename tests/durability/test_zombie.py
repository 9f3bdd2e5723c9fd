"""A worker that was frozen for longer than its lease: its jobs belong to others, and it can do nothing about them."""

from types import SimpleNamespace

import pytest
from processes import Scene, app

LEASE = 1.5
VERBS = ("finish", "fail", "snooze", "progress", "finish_within")
UNBEGUN = 6  # Each runs in a child process of the heir's, as it was lost with its worker.
WARM_UP = 100


@pytest.fixture(scope="module")
def stories() -> dict:
    return {}


@pytest.fixture
def story(stories, backend_name, request, tmp_path_factory) -> SimpleNamespace:
    """What happened around one zombie, told once per database: every test here looks at another side of it."""
    if backend_name not in stories:
        stories[backend_name] = None  # A story that does not come to its end is not told again.
        stories[backend_name] = tell(
            request.getfixturevalue("scene"), request.getfixturevalue("wait_until")
        )
    if stories[backend_name] is None:
        pytest.fail("the story did not come to its end: see the first test of this file")
    return stories[backend_name]


def tell(scene: Scene, wait_until) -> SimpleNamespace:
    effects = scene.effects
    app.METADATA.create_all(scene.engine)
    zombie = scene.worker(lease=LEASE, concurrency=len(VERBS) + 1)
    for _ in range(WARM_UP // 20):  # Short jobs teach it to hold some in advance.
        scene.many("nop", [()] * 20, queue="warm-up")
        wait_until(lambda: not {"available", "running"} & set(scene.states()))
    holds = [scene.task("hold").call(verb) for verb in (*VERBS, "watch")]
    ids = [
        job.id
        for job in scene.jobs.enqueue_many([*holds, *[scene.task("work").call(0.01)] * UNBEGUN])
    ]
    held, unbegun = ids[: len(holds)], ids[len(holds) :]
    wait_until(lambda: len(effects.read("started")) == len(held))
    scene.pause_outside_of_a_transaction(zombie)
    frozen_at = app.boottime()
    claimed = [id_ for id_ in unbegun if scene.record(id_).fence]
    heir = scene.worker(lease=LEASE, concurrency=len(VERBS) + 1 + UNBEGUN)

    everything = len(held) + UNBEGUN
    wait_until(
        lambda: sum(effect.pid != zombie.pid for effect in effects.read("started")) == everything,
        timeout=60,
    )
    wait_until(lambda: app.boottime() - frozen_at > 2.5 * LEASE)
    wait_until(
        lambda: all(
            scene.record(id_).progress == 0.5
            for id_ in held
            if "progress" in scene.record(id_).args
        )
    )
    for verb in VERBS:
        effects.open_gate(verb, zombie.pid)
    with scene.nobody_writes():
        zombie.resume()
        resumed_at = app.boottime()
        # Its slots are free now, and what it had claimed lies before them. It cannot know yet that it lost its lease.
        wait_until(lambda: len(effects.read("ended", pid=zombie.pid)) >= len(VERBS) - 1)
    wait_until(lambda: effects.read("told", pid=zombie.pid))
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
        heir=heir,
        resumed_at=resumed_at,
        zombie_exit=code,
        zombie_log=zombie.log,
        meanwhile={id_: scene.record(id_) for id_ in held},
    )
    for verb in (*VERBS, "watch"):
        effects.open_gate(verb)
    wait_until(scene.ended(everything + WARM_UP))
    story.final = {id_: scene.record(id_) for id_ in (*held, *unbegun)}
    story.attempts = {id_: scene.attempts(id_) for id_ in (*held, *unbegun)}
    story.payments = scene.rows("SELECT job, fence FROM payments")
    return story


@pytest.mark.parametrize("verb", VERBS)
def test_a_worker_that_lost_its_lease_cannot(verb: str, story: SimpleNamespace) -> None:
    id_ = story.held[verb]
    meanwhile, final = story.meanwhile[id_], story.final[id_]
    mine, theirs = story.effects.read("started", job=id_)
    assert mine.pid == story.zombie.pid != theirs.pid
    assert theirs.fence > mine.fence
    # After the zombie has said its word, the job is still the heir's, and untouched.
    assert (meanwhile.state, meanwhile.fence, meanwhile.attempt) == ("running", theirs.fence, 1)
    assert meanwhile.worker.endswith(f"-{story.heir.pid}")
    assert (final.state, final.result, final.fence) == (
        "succeeded",
        str(theirs.fence),
        theirs.fence + 1,
    )
    assert [attempt.outcome for attempt in story.attempts[id_]] == ["lost", "succeeded"]
    assert f"job {id_} (hold): the claim with fence {mine.fence} was lost" in story.zombie_log


def test_its_progress_is_not_written(story: SimpleNamespace) -> None:
    for record in (story.meanwhile[story.held["progress"]], story.final[story.held["progress"]]):
        assert (record.progress, record.progress_message) == (0.5, "mine")


def test_its_effects_in_the_database_are_rolled_back(story: SimpleNamespace) -> None:
    assert story.effects.read("ClaimLost", job=story.held["finish_within"], pid=story.zombie.pid)
    assert story.payments == []


def test_it_does_not_start_what_it_had_claimed_and_not_begun(story: SimpleNamespace) -> None:
    assert story.claimed, "it had claimed nothing in advance: this test shows nothing"
    began = [effect for effect in story.effects.read("started") if effect.job in story.unbegun]
    assert story.zombie.pid not in {effect.pid for effect in began}
    assert sorted(effect.job for effect in began) == story.unbegun


def test_its_handlers_are_told_and_it_goes_on_in_order(story: SimpleNamespace) -> None:
    (told,) = story.effects.read("told", pid=story.zombie.pid)
    assert told.cancelled
    assert told.at - story.resumed_at <= 3
    assert "lost its lease" in story.zombie_log
    assert story.zombie_exit == 0
