"""finish_within: effects in the jobs' own database and the success of the job are one transaction."""

import threading

import pytest
from processes import ProcessScenario, app
from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from jobqueue import current_job
from jobqueue.errors import ClaimLost, JobCancelled
from jobqueue.store.schema import workers
from jobqueue.store.leases import Leases

POINTS = ("before the effect", "after the effect", "after finish_within", "after the commit")
PAID = "SELECT job, fence FROM payments ORDER BY job"


@pytest.fixture
def scenario(scenario: ProcessScenario) -> ProcessScenario:
    app.METADATA.create_all(scenario.engine)
    return scenario


def pay(session: Session) -> None:
    session.execute(insert(app.PAYMENTS), {"job": current_job().id, "fence": current_job().fence})


def test_a_job_whose_worker_is_killed_at_any_step_has_paid_once(
    scenario: ProcessScenario, wait_until
) -> None:
    victims = [scenario.launch(queues=f"q{place}") for place in range(len(POINTS))]
    for victim in victims:
        victim.await_ready()
    ids = [
        scenario.task("pay", queue=f"q{place}").enqueue(point).id
        for place, point in enumerate(POINTS)
    ]
    wait_until(lambda: not any(victim.alive for victim in victims))
    scenario.worker()
    wait_until(scenario.ended(len(POINTS)))
    paid = scenario.rows(PAID)
    assert [row.job for row in paid] == ids
    for id_, row, point in zip(ids, paid, POINTS):
        record = scenario.record(id_)
        assert (record.result, record.fence) == ('"paid"', row.fence + 1)
        again = [] if point == "after the commit" else ["lost"]
        assert [attempt.outcome for attempt in scenario.attempts(id_)] == [*again, "succeeded"]


def test_a_job_that_was_reaped_meanwhile_raises_and_its_effects_are_rolled_back(
    scenario: ProcessScenario, wait_until
) -> None:
    caught, begun, reaped = [], threading.Event(), threading.Event()

    @scenario.jobs.task
    def careful() -> None:
        begun.set()
        assert reaped.wait(60)
        try:
            with Session(scenario.engine) as session, session.begin():
                pay(session)
                current_job().finish_within(session)
        except ClaimLost as error:
            caught.append(error)
            raise

    with scenario.jobs.worker(lease=60, queues="mine"):
        job = careful.options(queue="mine").enqueue()
        assert begun.wait(60)
        # As another worker's reaper would, that has seen this one be silent; its next beat is 20 s away.
        with scenario.jobs.store.write() as connection:
            connection.execute(delete(workers))
        wait_until(lambda: Leases(scenario.jobs.store).reap() or job.record().fence > 1)
        reaped.set()
        wait_until(lambda: caught)
    assert scenario.rows(PAID) == []
    assert job.state == "available"


def test_called_and_not_committed_is_an_error_and_never_a_success(
    scenario: ProcessScenario, wait_until
) -> None:
    @scenario.jobs.task(max_attempts=1)
    def forgetful(how: str) -> str:
        session = Session(scenario.engine)
        pay(session)
        current_job().finish_within(session, "paid")
        if how == "rolled back":
            session.rollback()
        if how == "raised":
            with session:
                raise RuntimeError("before the commit")
        return "done"

    with scenario.jobs.worker(concurrency=2):
        jobs = [forgetful.enqueue(how) for how in ("left open", "rolled back", "raised")]
        wait_until(lambda: all(job.done() for job in jobs))
    assert [job.state for job in jobs] == ["failed"] * 3
    assert [job.record().error.type for job in jobs] == [
        "NotCommitted",
        "NotCommitted",
        "RuntimeError",
    ]
    assert scenario.rows(PAID) == []


def test_a_job_cancelled_meanwhile_is_rolled_back_and_cancelled(
    scenario: ProcessScenario, wait_until
) -> None:
    caught, begun, asked = [], threading.Event(), threading.Event()

    @scenario.jobs.task
    def unwanted() -> None:
        begun.set()
        assert asked.wait(60)
        try:
            with Session(scenario.engine) as session, session.begin():
                pay(session)
                current_job().finish_within(session)
        except JobCancelled as error:
            caught.append(error)
            raise

    with scenario.jobs.worker():
        job = unwanted.enqueue()
        assert begun.wait(60)
        job.cancel()
        asked.set()
        wait_until(job.done)
    assert caught
    assert job.state == "cancelled"
    assert scenario.rows(PAID) == []


@pytest.mark.parametrize("afterwards", ["return", "raise", "snooze"])
def test_what_the_handler_does_after_the_commit_undoes_nothing(
    scenario: ProcessScenario, afterwards: str, wait_until
) -> None:
    from jobqueue import Snooze

    @scenario.jobs.task
    def talkative() -> str:
        with Session(scenario.engine) as session, session.begin():
            pay(session)
            current_job().finish_within(session, "paid")
        if afterwards == "raise":
            raise RuntimeError("too late")
        if afterwards == "snooze":
            raise Snooze(1)
        return "another result"

    with scenario.jobs.worker() as worker:
        job = talkative.enqueue()
        assert job.result(timeout=60) == "paid"
        wait_until(lambda: worker.processed)
    assert job.state == "succeeded"
    assert [(row.job, row.fence) for row in scenario.rows(PAID)] == [(job.id, 1)]
    assert [attempt.outcome for attempt in scenario.attempts(job.id)] == ["succeeded"]
