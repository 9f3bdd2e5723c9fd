"""Commits that were done and not answered, or cut off before: nothing is lost by them, and nothing is done twice."""

import re
import sqlite3

import pytest
from processes import ProcessScenario
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

# Which of the two depends on whether another service met the next one before it was over.
FIRST = re.compile(
    r" WARNING the database is unavailable \([a-z ]+: OperationalError: .+\): this worker claims "
    r"| INFO [a-z ]+: failed once, and works again: OperationalError: "
)


def test_no_job_is_lost_when_every_few_commits_of_the_workers_lose_their_answer(
    scenario: ProcessScenario, wait_until
) -> None:
    """The claims of such a commit belong to a worker that does not know of them."""
    workers = [scenario.launch(lossy=5), scenario.launch(lossy=7)]
    for worker in workers:
        worker.await_ready()
    ids = []
    for _ in range(5):
        ids += scenario.many("work", [(0.01,)] * 40)
        wait_until(scenario.ended(len(ids)))
    starts = scenario.effects.read("started")
    assert (
        sorted(effect.job for effect in starts) == ids
    )  # Once each: no claim that has begun was given back.
    for id_ in ids:
        record = scenario.record(id_)
        assert (record.attempt, record.crashes) == (1, 0)
        assert record.result == str(record.fence - 1)
    assert scenario.rows("SELECT * FROM jobqueue_attempts") == []
    for worker in workers:
        said = [line for line in worker.log.splitlines() if "Error: " in line]
        assert said and FIRST.search(said[0]), worker.log
        assert ", retrying: " not in worker.log  # Each is an outage, or one lost connection.


@pytest.mark.parametrize("cut", ["before the commit", "after the commit"])
def test_an_enqueue_whose_connection_is_cut_can_be_repeated(
    scenario: ProcessScenario, cut: str
) -> None:
    task = scenario.task("nop", unique_key="once", unique_until="deleted")
    dialect = scenario.jobs.store.engine.dialect
    commit = dialect.do_commit

    def broken(connection) -> None:
        dialect.do_commit = commit
        if cut == "after the commit":
            commit(connection)
        if scenario.on_sqlite:
            raise sqlite3.OperationalError("disk I/O error")
        pid = connection.driver_connection.info.backend_pid
        with scenario.engine.connect() as other:
            other.execute(text(f"SELECT pg_terminate_backend({pid}, 5000)"))
        connection.driver_connection.execute(
            "SELECT 1"
        )  # Raises what a COMMIT that is not answered does.

    assert scenario.states() == {}  # The first transaction only looks whether the tables are there.
    scenario.jobs._jobs.limits._read_at = float("inf")  # No commit of what is read once a second.
    dialect.do_commit = broken
    with pytest.raises(DBAPIError):
        task.enqueue()
    assert len(scenario.states()) == (cut == "after the commit")
    repeated = task.enqueue()
    assert repeated.created == (cut == "before the commit")
    assert task.enqueue().id == repeated.id
    assert scenario.states() == {"available": 1}


@pytest.mark.parametrize("dies", ["before", "after"])
def test_an_enqueue_whose_process_is_killed_can_be_repeated(
    scenario: ProcessScenario, dies: str
) -> None:
    process = scenario.launch("enqueuer", dies=dies)
    assert process.wait() == -9
    assert len(scenario.states()) == (dies == "after")
    job = scenario.task("nop", unique_key="once", unique_until="deleted").enqueue()
    assert job.created == (dies == "before")
    # As long as the row is kept, even when the job has ended.
    with scenario.jobs.worker():
        job.result(timeout=60)
    again = scenario.task("nop", unique_key="once", unique_until="deleted").enqueue()
    assert (again.id, again.created) == (job.id, False)
    assert scenario.states() == {"succeeded": 1}
