"""Bounded queues: exact among producers, waited for or refused, on both databases."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, event, insert, select, update
from sqlalchemy.orm import Session

from jobqueue import JobQueue, QueueFull, State
from jobqueue import database_binding
from jobqueue.store.clock import now, this_minute
from jobqueue.errors import InvalidOption
from jobqueue.store.schema import counters, queues
from jobqueue.store.schema import jobs as job_table
from jobqueue.store.enqueue import Enqueuer
from jobqueue.store.database import Store


@pytest.fixture
def work(jobs: JobQueue) -> Any:
    @jobs.task(name="work")
    def work(number: int = 0) -> int:
        return number

    return work


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """The program's own, with SQLAlchemy's defaults."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    yield engine
    engine.dispose()


def bound(jobs: JobQueue, queue: str) -> int | None:
    with jobs.store.read() as connection:
        return connection.execute(
            select(queues.c.max_pending).where(queues.c.name == queue)
        ).scalar()


def waits_for_a_lock(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(
            connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar()
        )


def pending(jobs: JobQueue, queue: str) -> int:
    return sum(
        1
        for state in (State.SCHEDULED, State.AVAILABLE)
        for _ in jobs.list(state=state, queue=queue, limit=None)
    )


def test_a_full_queue_refuses_and_says_when_to_come_again(jobs: JobQueue, work: Any) -> None:
    thumbs = jobs.queue("thumbs", max_pending=2, when_full="reject")
    task = work.options(queue=thumbs)
    task.enqueue()
    task.options(delay=3600).enqueue()
    with pytest.raises(QueueFull, match="'thumbs' is full: its limit of 2 jobs") as caught:
        task.enqueue()
    assert (caught.value.queue, caught.value.max_pending) == ("thumbs", 2)
    assert 1 <= caught.value.retry_after <= 60
    assert pending(jobs, "thumbs") == 2
    work.enqueue()
    assert pending(jobs, "default") == 1, "other queues have no bound"


def test_when_to_come_again_is_guessed_from_the_last_two_minutes(jobs: JobQueue) -> None:
    with jobs.store.write() as connection:
        minute = connection.execute(select(this_minute())).scalar_one()
        row = {"queue": "thumbs", "task": "work"}
        for at in (minute - timedelta(minutes=1), minute):
            connection.execute(insert(counters).values(**row, minute=at, succeeded=600))
    guess = jobs._jobs.limits._retry_after("thumbs", 400, None)
    assert guess in (pytest.approx(30), pytest.approx(60))  # 60 if a minute has just ended


def test_many_at_once_are_enqueued_all_or_none(jobs: JobQueue, work: Any) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=5, when_full="reject"))
    jobs.enqueue_many([task.call(n) for n in range(3)])
    with pytest.raises(QueueFull):
        jobs.enqueue_many([work.call(), *(task.call(n) for n in range(3))])
    assert (pending(jobs, "thumbs"), pending(jobs, "default")) == (3, 0)
    with pytest.raises(QueueFull, match="6 jobs at once never fit in"):
        jobs.enqueue_many([task.call(n) for n in range(6)])


def test_more_than_ever_fits_is_refused_even_where_one_waits(jobs: JobQueue, work: Any) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=2))
    with pytest.raises(QueueFull, match="never fit in"):
        jobs.enqueue_many([task.call(n) for n in range(3)])


def test_a_held_unique_key_needs_no_room(jobs: JobQueue, work: Any) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=1, when_full="reject"))
    first = task.options(unique_key="k").enqueue()
    again = task.options(unique_key="k").enqueue()
    assert (again.id, again.created) == (first.id, False)
    with pytest.raises(QueueFull):
        task.options(unique_key="l").enqueue()


def test_a_held_key_needs_no_room_where_more_wait_than_may(jobs: JobQueue, work: Any) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=2))
    first = task.options(unique_key="k").enqueue()
    task.enqueue()
    with jobs.store.write() as connection:
        connection.execute(update(queues).values(max_pending=1))
    again = task.options(unique_key="k").enqueue()
    assert (again.id, again.created) == (first.id, False)


def test_a_key_that_is_given_several_times_needs_room_once(jobs: JobQueue, work: Any) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=1, when_full="reject"))
    made = jobs.enqueue_many([task.options(unique_key="k").call() for _ in range(3)])
    assert len({job.id for job in made}) == pending(jobs, "thumbs") == 1


@pytest.mark.parametrize("within", [False, True])
def test_a_key_that_becomes_free_while_jobs_are_inserted_needs_room(
    jobs: JobQueue, work: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch, within: bool
) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=1, when_full="reject"))
    task.enqueue()
    elsewhere = work.options(unique_key="k").enqueue()
    insert = Enqueuer._insert

    def free_the_key_first(self: Enqueuer, connection: Any, new: Any) -> Any:
        connection.execute(
            update(job_table).where(job_table.c.id == elsewhere.id).values(unique_key=None)
        )
        return insert(self, connection, new)

    monkeypatch.setattr(Enqueuer, "_insert", free_the_key_first)
    with Session(engine) as session, session.begin(), pytest.raises(QueueFull):
        jobs.enqueue_many([task.options(unique_key="k").call()], within=session if within else None)
    assert pending(jobs, "thumbs") == 1


@pytest.mark.databases("postgres")
def test_who_holds_a_key_is_asked_after_the_wait_for_other_producers(
    jobs: JobQueue, work: Any, engine: Engine, wait_until: Callable[..., Any], backend_name: str
) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=1, when_full="reject"))
    keyed = task.options(unique_key="k")
    jobs.cancel(task.enqueue().id)
    with ThreadPoolExecutor(1) as threads:
        with Session(engine) as session, session.begin():
            first = keyed.within(session).enqueue()
            second = threads.submit(keyed.enqueue)
            wait_until(lambda: waits_for_a_lock(engine))
        assert (second.result(30).id, second.result(30).created) == (first.id, False)


def test_what_waits_is_counted_in_one_statement(jobs: JobQueue, work: Any) -> None:
    """A scheduled job that is promoted between two of them would be in neither."""
    task = work.options(queue=jobs.queue("thumbs", max_pending=5))
    task.enqueue()
    counts: list[str] = []
    event.listen(
        jobs.store.engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: counts.append(statement) if "count(" in statement else 0,
    )
    task.enqueue()
    assert len(counts) == 1


def test_a_producer_waits_until_there_is_room(
    jobs: JobQueue, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=1))
    first = task.enqueue()
    waits, may_look = threading.Event(), threading.Event()

    def pause(_seconds: float) -> None:
        waits.set()
        may_look.wait(30)

    monkeypatch.setattr(jobs.store, "pause", pause)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(task.enqueue)
        assert waits.wait(30), "it has tried, and there was no room"
        assert pending(jobs, "thumbs") == 1
        jobs.cancel(first.id)
        may_look.set()
        assert second.result(30).created


def test_a_producer_waits_no_longer_than_its_timeout(jobs: JobQueue, work: Any) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=1, timeout=0.05))
    task.enqueue()
    with pytest.raises(QueueFull):
        task.enqueue()


def test_within_a_transaction_nobody_waits(jobs: JobQueue, work: Any, engine: Engine) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=1))
    with Session(engine) as session, session.begin():
        task.within(session).enqueue()
        with pytest.raises(QueueFull):
            task.within(session).enqueue()
    assert pending(jobs, "thumbs") == 1


def test_a_declared_bound_does_not_make_transactions_on_other_queues_wait(
    jobs: JobQueue, work: Any, engine: Engine
) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=5))
    with Session(engine) as session, session.begin():
        task.within(session).enqueue()
    wrote: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def see(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if queues.name in statement and not statement.lstrip().startswith("SELECT"):
            wrote.append(statement)

    for _ in range(2):
        with Session(engine) as session, session.begin():
            work.within(session).enqueue()
    assert wrote == []


@pytest.mark.databases("postgres")
def test_two_transactions_enqueue_elsewhere_at_once_whoever_declared_a_bound(
    jobs: JobQueue, work: Any, engine: Engine, backend_name: str
) -> None:
    work.options(queue=jobs.queue("thumbs", max_pending=5)).enqueue()
    jobs.queue("thumbs", max_pending=5)

    def enqueue() -> None:
        with Session(engine) as session, session.begin():
            work.within(session).enqueue()

    with ThreadPoolExecutor(1) as threads, Session(engine) as session, session.begin():
        work.within(session).enqueue()
        threads.submit(enqueue).result(60)


def test_a_bound_that_was_rolled_back_is_written_with_the_next_transaction(
    jobs: JobQueue, work: Any, engine: Engine
) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=1))
    with Session(engine) as session:
        task.within(session).enqueue()
        session.rollback()
        task.within(session).enqueue()
        with pytest.raises(QueueFull):
            task.within(session).enqueue()
        session.commit()
    assert bound(jobs, "thumbs") == 1


def test_a_bound_that_an_operator_has_changed_stays_as_it_is(
    jobs: JobQueue, work: Any, engine: Engine
) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=9))
    for most in (9, 8, 7):
        with Session(engine) as session, session.begin():
            task.within(session).enqueue()
        assert bound(jobs, "thumbs") == most
        with jobs.store.write() as connection:
            connection.execute(update(queues).values(max_pending=most - 1))


@pytest.mark.databases("postgres")
def test_what_a_transaction_has_declared_holds_up_no_other_queue(
    jobs: JobQueue, work: Any, engine: Engine, backend_name: str
) -> None:
    jobs.queue("other", max_pending=3)
    task = work.options(queue=jobs.queue("thumbs", max_pending=9))
    with ThreadPoolExecutor(1) as threads, Session(engine) as session, session.begin():
        task.within(session).enqueue()
        assert threads.submit(work.enqueue).result(60).created
        assert (bound(jobs, "other"), bound(jobs, "thumbs")) == (3, None)
        session.rollback()
    work.enqueue()
    assert (bound(jobs, "other"), bound(jobs, "thumbs")) == (3, 9)


def test_a_transaction_that_all_connections_wait_for_is_told_that_there_is_no_room(
    url: str, engine: Engine, wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_binding, "Store", partial(Store, connections=2))
    with JobQueue(url) as jobs, ThreadPoolExecutor(2) as threads:
        pool: Any = jobs.store.engine.pool
        pool._timeout = 3

        @jobs.task
        def plain() -> None: ...

        task = plain.options(queue=jobs.queue("thumbs", max_pending=1, timeout=30))
        plain.enqueue()  # The bound is written.
        with Session(engine) as session, session.begin():
            task.within(session).enqueue()
            waiting = [threads.submit(task.enqueue) for _ in range(2)]
            kept = jobs.store.backend.single_writer  # for statements in autocommit
            wait_until(lambda: pool.checkedout() == 2 + kept)
            with pytest.raises(QueueFull, match="its limit of 1 job is reached"):
                task.within(session).enqueue()
            with pytest.raises(QueueFull, match="2 jobs at once never fit in"):
                jobs.enqueue_many([task.call(), task.call()], within=session)

        def served() -> bool:
            for job in jobs.list(state=State.AVAILABLE, queue="thumbs"):
                jobs.cancel(job.id)
            return all(future.done() for future in waiting)

        wait_until(served)
        assert all(future.result().created for future in waiting)


def test_a_process_that_did_not_declare_it_obeys_the_bound_too(
    jobs: JobQueue, work: Any, url: str
) -> None:
    work.options(queue=jobs.queue("thumbs", max_pending=1, when_full="reject")).enqueue()
    with JobQueue(url) as other:

        @other.task(name="work", queue="thumbs")
        def same() -> None: ...

        with pytest.raises(QueueFull):
            same.enqueue()


def test_a_bound_that_was_lifted_meanwhile_holds_no_one(jobs: JobQueue, work: Any) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=1, when_full="reject"))
    task.enqueue()
    with jobs.store.write() as connection:
        connection.execute(update(queues).values(max_pending=None))
    assert task.enqueue().created


def test_retries_may_exceed_the_bound(jobs: JobQueue, work: Any) -> None:
    task = work.options(queue=jobs.queue("thumbs", max_pending=1, when_full="reject"))
    first = task.enqueue()
    jobs.cancel(first.id)
    task.enqueue()
    jobs.retry(first.id)
    assert pending(jobs, "thumbs") == 2


def test_the_bound_is_exact_among_producers_and_loses_nothing(
    jobs: JobQueue, work: Any, url: str
) -> None:
    each, producers, bound = 25, 8, 10
    seen: list[int] = []
    done = threading.Event()

    def produce(number: int) -> None:
        with JobQueue(url) as mine:

            @mine.task(name="work")
            def same(number: int = 0) -> int:
                return number

            task = same.options(queue=mine.queue("thumbs", max_pending=bound))
            for n in range(each):
                task.enqueue(number * each + n)

    def watch() -> None:
        while not done.is_set():
            seen.append(pending(jobs, "thumbs"))

    work.options(queue=jobs.queue("thumbs", max_pending=bound)).enqueue(-1)
    with ThreadPoolExecutor(producers + 1) as pool, jobs.worker(concurrency=1, queues="thumbs"):
        watching = pool.submit(watch)
        try:
            list(pool.map(produce, range(producers)))
        finally:
            done.set()
        watching.result(30)
    assert max(seen) <= bound
    assert sum(1 for _ in jobs.list(limit=None)) == each * producers + 1


def test_producers_of_unbounded_queues_pay_nothing(jobs: JobQueue, work: Any) -> None:
    work.enqueue()
    asked: list[str] = []
    event.listen(
        jobs.store.engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: asked.append(statement),
    )
    jobs._jobs.limits._read_at = float("inf")
    work.enqueue()
    jobs.enqueue_many([work.call(), work.call()])
    assert not [statement for statement in asked if queues.name in statement]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"name": "a b", "max_pending": 1}, "queue"),
        ({"name": "a", "max_pending": 0}, "max_pending"),
        ({"name": "a", "max_pending": 1, "when_full": "drop"}, "when_full"),
        ({"name": "a", "max_pending": 1, "timeout": -1}, "timeout"),
    ],
)
def test_a_bound_that_makes_no_sense_is_refused(
    jobs: JobQueue, given: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidOption, match=named):
        jobs.queue(**given)
