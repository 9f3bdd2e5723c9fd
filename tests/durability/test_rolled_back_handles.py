"""Handles of jobs whose transaction was rolled back never stand for another job."""

import pytest
from sqlalchemy import text
from sqlalchemy.orm import (
    Session,
)

from jobqueue import JobQueue
from jobqueue.errors import JobNotFound
from tests.durability.conftest import ONLY_SQLITE, engine_of, ids, lambda_free

# Handles of what was rolled back


@pytest.mark.parametrize("kind", ["session", "connection"])
@pytest.mark.parametrize("how", ["rollback", "close", "savepoint"])
def test_the_handle_of_a_job_that_was_rolled_back_never_stands_for_another(
    jobs: JobQueue, url: str, kind: str, how: str
) -> None:
    """On SQLite a rollback gives ids back, and another process takes them."""
    add = jobs.registry["add"]
    with engine_of(url) as engine:
        with Session(engine) if kind == "session" else engine.connect() as transaction:
            if how == "savepoint":
                transaction.execute(text("DELETE FROM jobqueue_jobs"))  # The module begins here.
            savepoint = transaction.begin_nested() if how == "savepoint" else None
            job = add.within(transaction).enqueue(10, 10)
            many = jobs.enqueue_many([add.call(1, 1)] * 3, within=transaction)
            if savepoint is not None:
                savepoint.rollback()
                transaction.commit()
            elif how == "rollback":
                transaction.rollback()
        with JobQueue(url) as other_process:
            other_process.task(name="add")(lambda_free)
            others = other_process.enqueue_many([other_process.registry["add"].call(20, 20)] * 9)
            for handle in (job, *many):
                with pytest.raises(JobNotFound):
                    handle.record()
                with pytest.raises(JobNotFound):
                    handle.result(timeout=5)
                with pytest.raises(JobNotFound):
                    handle.cancel()
            assert all(other.state == "available" for other in others)


def test_a_handle_on_a_job_that_was_there_stands_after_a_rollback(jobs: JobQueue, url: str) -> None:
    add = jobs.registry["add"]
    there = add.options(unique_key="there").enqueue(1, 1)
    with engine_of(url) as engine, Session(engine) as session:
        same = add.options(unique_key="there").within(session).enqueue(1, 1)
        new = add.options(unique_key="new").within(session).enqueue(1, 1)
        again = add.options(unique_key="new").within(session).enqueue(1, 1)
        assert (same.id, again.id) == (there.id, new.id)
        assert (same.created, new.created, again.created) == (False, True, False)
        session.rollback()
    with JobQueue(url) as other_process:
        other_process.task(name="add")(lambda_free).enqueue(20, 20)
    assert same.state == "available"
    for handle in (new, again):
        with pytest.raises(JobNotFound):
            handle.record()


@pytest.mark.parametrize("then", ["enqueue", "enqueue_many", "within", "same transaction"])
def test_an_id_that_a_handle_has_is_not_given_again_in_this_process(
    jobs: JobQueue, url: str, then: str
) -> None:
    add = jobs.registry["add"]
    with engine_of(url) as engine, Session(engine) as session:
        session.execute(text("DELETE FROM jobqueue_jobs"))
        savepoint = session.begin_nested()
        gone = [job.id for job in jobs.enqueue_many([add.call(1, 1)] * 3, within=session)]
        savepoint.rollback()
        if then != "same transaction":
            session.rollback()
        if then in ("within", "same transaction"):
            made = [add.within(session).enqueue(2, 2)]
            session.commit()
        elif then == "enqueue":
            made = [add.enqueue(2, 2)]
        else:
            made = jobs.enqueue_many([add.call(2, 2)] * 2)
        assert not {job.id for job in made} & set(gone)
        assert [job.record().id for job in made] == ids(jobs)
        assert add.enqueue(3, 3).id == made[-1].id + 1  # And no id is left out from now on.


def test_a_released_savepoint_and_a_commit_keep_the_handle(jobs: JobQueue, url: str) -> None:
    add = jobs.registry["add"]
    with engine_of(url) as engine, Session(engine) as session:
        session.execute(text("DELETE FROM jobqueue_jobs"))
        with session.begin_nested():
            kept = add.within(session).enqueue(1, 1)
        savepoint = session.begin_nested()
        gone = add.within(session).enqueue(2, 2)
        savepoint.rollback()
        session.commit()
        later = add.within(session).enqueue(3, 3)
        session.rollback()
    assert ids(jobs) == [kept.id]
    assert kept.state == "available"
    for handle in (gone, later):
        with pytest.raises(JobNotFound):
            handle.record()


@ONLY_SQLITE
def test_a_commit_as_text_keeps_the_handle(jobs: JobQueue, url: str) -> None:
    add = jobs.registry["add"]
    with engine_of(url) as engine:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            job = add.within(connection).enqueue(1, 1)
            connection.exec_driver_sql("COMMIT")
        assert job.state == "available"
