"""Commits that were done and not answered, or cut off before: nothing is lost by them, and nothing is done twice."""

import sqlite3

import pytest
from processes import ProcessScenario
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError


def test_no_job_is_lost_when_every_few_commits_of_the_workers_lose_their_answer(
    scene: ProcessScenario, wait_until
) -> None:
    """The claims of such a commit belong to a worker that does not know of them."""
    workers = [scene.launch(lossy=5), scene.launch(lossy=7)]
    for worker in workers:
        worker.await_ready()
    ids = []
    for _ in range(5):
        ids += scene.many("work", [(0.01,)] * 40)
        wait_until(scene.ended(len(ids)), 20)
    starts = scene.effects.read("started")
    assert (
        sorted(effect.job for effect in starts) == ids
    )  # Once each: no claim that has begun was given back.
    for id_ in ids:
        record = scene.record(id_)
        assert (record.attempt, record.crashes) == (1, 0)
        assert record.result == str(record.fence - 1)
    assert scene.rows("SELECT * FROM jobqueue_attempts") == []
    assert any(", retrying: " in worker.log for worker in workers)


@pytest.mark.parametrize("cut", ["before the commit", "after the commit"])
def test_an_enqueue_whose_connection_is_cut_can_be_repeated(
    scene: ProcessScenario, cut: str
) -> None:
    task = scene.task("nop", unique_key="once", unique_until="deleted")
    dialect = scene.jobs.store.engine.dialect
    commit = dialect.do_commit

    def broken(connection) -> None:
        dialect.do_commit = commit
        if cut == "after the commit":
            commit(connection)
        if scene.on_sqlite:
            raise sqlite3.OperationalError("disk I/O error")
        pid = connection.driver_connection.info.backend_pid
        with scene.engine.connect() as other:
            other.execute(text(f"SELECT pg_terminate_backend({pid}, 5000)"))
        connection.driver_connection.execute(
            "SELECT 1"
        )  # Raises what a COMMIT that is not answered does.

    assert scene.states() == {}  # The first transaction only looks whether the tables are there.
    scene.jobs._jobs.limits._read_at = float("inf")  # No commit of what is read once a second.
    dialect.do_commit = broken
    with pytest.raises(DBAPIError):
        task.enqueue()
    assert len(scene.states()) == (cut == "after the commit")
    repeated = task.enqueue()
    assert repeated.created == (cut == "before the commit")
    assert task.enqueue().id == repeated.id
    assert scene.states() == {"available": 1}


@pytest.mark.parametrize("dies", ["before", "after"])
def test_an_enqueue_whose_process_is_killed_can_be_repeated(
    scene: ProcessScenario, dies: str
) -> None:
    process = scene.launch("enqueuer", dies=dies)
    assert process.wait() == -9
    assert len(scene.states()) == (dies == "after")
    job = scene.task("nop", unique_key="once", unique_until="deleted").enqueue()
    assert job.created == (dies == "before")
    # As long as the row is kept, even when the job has ended.
    with scene.jobs.worker():
        job.result(timeout=10)
    again = scene.task("nop", unique_key="once", unique_until="deleted").enqueue()
    assert (again.id, again.created) == (job.id, False)
    assert scene.states() == {"succeeded": 1}
