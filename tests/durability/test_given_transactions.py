"""What is given as a transaction is checked by every method, and leads to this queue or is refused."""

import asyncio

import pytest
from sqlalchemy import Connection, event, make_url
from sqlalchemy.exc import IntegrityError, InvalidRequestError, PendingRollbackError
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)

from jobqueue import JobQueue, current_job
from jobqueue.errors import ConfigurationError, InvalidOption, JobFailed
from tests.durability.conftest import ONLY_SQLITE, asynchronous, engine_of, ids

# The right things, in every form


def test_a_scoped_session_stands_for_its_session(jobs: JobQueue, url: str) -> None:
    add = jobs.registry["add"]
    with engine_of(url) as engine:
        factory = sessionmaker(engine)
        session = scoped_session(factory)

        @jobs.task(max_attempts=1)
        def finish() -> None:
            current_job().finish_within(session, "done")
            session.commit()
            session.remove()

        one = add.within(session).enqueue(1, 2)
        many = jobs.enqueue_many([add.call(1, 2)], within=session)
        session.commit()
        gone = add.within(session).enqueue(3, 4)
        session.rollback()
        session.remove()
        assert ids(jobs) == [one.id, many[0].id]
        assert gone.id not in ids(jobs)
        with jobs.worker():
            assert finish.enqueue().result(timeout=60) == "done"
        # Nothing of ours is on what all of the application's sessions are made by.
        with factory() as fresh:
            assert not fresh.info
            assert list(fresh.dispatch.after_commit) == []


def test_a_scoped_session_that_finishes_and_is_left_open_is_rolled_back(
    jobs: JobQueue, url: str
) -> None:
    with engine_of(url) as engine:
        session = scoped_session(sessionmaker(engine))

        @jobs.task(max_attempts=1)
        def finish() -> None:
            current_job().finish_within(session)

        with jobs.worker(), pytest.raises(JobFailed, match="not committed"):
            finish.enqueue().result(timeout=60)


def test_an_async_scoped_session_stands_for_its_session(jobs: JobQueue, url: str) -> None:
    add = jobs.registry["add"]
    engine = create_async_engine(asynchronous(url))
    session = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)

    @jobs.task(max_attempts=1)
    async def finish() -> None:
        await current_job().afinish_within(session, "done")
        await session.commit()
        await session.remove()

    async def main():
        gone = await add.within(session).aenqueue(1, 2)
        await session.rollback()
        kept = await add.within(session).aenqueue(1, 2)
        await session.commit()
        await session.remove()
        await engine.dispose()
        return gone, kept

    gone, kept = asyncio.run(main())
    assert ids(jobs) == [kept.id]
    assert gone.id != kept.id
    with jobs.worker():
        assert finish.enqueue().result(timeout=60) == "done"
    asyncio.run(engine.dispose())


# The wrong ones


def methods(jobs: JobQueue):
    """Each method that takes a transaction, as a function of what is given."""
    add = jobs.registry["add"]
    return {
        "within": lambda given: add.within(given).enqueue(1, 2),
        "aenqueue": lambda given: asyncio.run(add.within(given).aenqueue(1, 2)),
        "enqueue_many": lambda given: jobs.enqueue_many([add.call(1, 2)], within=given),
        "finish_within": lambda given: in_a_job(jobs, lambda job: job.finish_within(given)),
        "afinish_within": lambda given: in_a_job(
            jobs, lambda job: asyncio.run(job.afinish_within(given))
        ),
    }


def in_a_job(jobs: JobQueue, act) -> None:
    """Do it in a handler, and raise what it raises."""
    caught = []

    @jobs.task(name=f"act{len(jobs.registry)}", max_attempts=1)
    def handler() -> str:
        try:
            act(current_job())
        except Exception as error:
            caught.append(error)
        return "went on"

    job = handler.enqueue()
    with jobs.worker():
        assert job.result(timeout=60) == "went on"
    jobs.delete(job.id)
    if caught:
        raise caught[0]


@pytest.mark.parametrize("method", ["within", "enqueue_many", "finish_within", "afinish_within"])
def test_what_is_not_a_transaction_is_refused_by_every_method_before_anything_is_written(
    jobs: JobQueue, url: str, method: str
) -> None:
    use = methods(jobs)[method]
    with engine_of(url) as engine:
        for given in (engine, sessionmaker(engine), Session, url, 7):
            with pytest.raises(InvalidOption, match=f"{type(given).__name__} is not") as caught:
                use(given)
            assert "\n" not in str(caught.value)
        with pytest.raises(InvalidOption, match="within: Engine is not"):
            jobs.registry["add"].within(engine)  # Where it is given, and not at the first enqueue.
    assert ids(jobs) == []


def test_an_async_session_is_refused_where_a_session_is_wanted_and_the_reverse(
    jobs: JobQueue, url: str
) -> None:
    for method, use in methods(jobs).items():
        if method in ("aenqueue", "afinish_within"):
            instead = {
                "aenqueue": "add.within(session).enqueue(…)",
                "afinish_within": "current_job().finish_within(session)",
            }[method]
            with engine_of(url) as engine, Session(engine) as session, engine.connect() as bare:
                for given in (session, scoped_session(lambda: session), bare):
                    with pytest.raises(InvalidOption) as caught:
                        use(given)
                    assert str(caught.value) == (
                        f"{method}: {type(given).__name__} is not an AsyncSession or "
                        f"AsyncConnection; write {instead}"
                    )
                assert not session.in_transaction() and not bare.in_transaction()
        else:
            session = AsyncSession(create_async_engine(asynchronous(url)))
            remedy = {"within": "aenqueue", "enqueue_many": "run_sync"}.get(
                method, "afinish_within"
            )
            with pytest.raises(InvalidOption, match=remedy):
                use(session)
    assert ids(jobs) == []


AUTOCOMMITS = ["engine", "options", "connection", "driver"]


@pytest.mark.parametrize("method", ["within", "enqueue_many", "finish_within"])
@pytest.mark.parametrize("kind", ["session", "connection"])
@pytest.mark.parametrize("how", AUTOCOMMITS)
def test_autocommit_is_refused_in_every_form(
    jobs: JobQueue, url: str, how: str, kind: str, method: str
) -> None:
    with engine_of(url, **({"isolation_level": "AUTOCOMMIT"} if how == "engine" else {})) as engine:
        if how == "driver":

            @event.listens_for(engine, "connect")
            def connected(connection, _) -> None:
                if jobs.store.backend.single_writer:
                    connection.isolation_level = None
                else:
                    connection.autocommit = True

        bind = engine
        if how == "options":
            bind = engine.execution_options(isolation_level="AUTOCOMMIT")
        if how == "connection":
            bind = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        with (
            Session(bind)
            if kind == "session"
            else (bind if isinstance(bind, Connection) else bind.connect()) as transaction
        ):
            with pytest.raises(InvalidOption, match="AUTOCOMMIT"):
                methods(jobs)[method](transaction)
        if isinstance(bind, Connection):
            bind.close()
    assert ids(jobs) == []


@pytest.mark.parametrize(
    ("backend_name", "driver"),
    [
        ("sqlite", "sqlite+aiosqlite"),
        ("postgres", "postgresql+asyncpg"),
        ("postgres", "postgresql+psycopg"),
    ],
)
@pytest.mark.parametrize("kind", ["session", "connection"])
def test_autocommit_is_refused_on_every_async_driver(
    jobs: JobQueue, url: str, driver: str, kind: str
) -> None:
    async def main() -> None:
        engine = create_async_engine(make_url(url).set(drivername=driver), **how)
        async with AsyncSession(engine) if kind == "session" else engine.connect() as transaction:
            with pytest.raises(InvalidOption, match="AUTOCOMMIT"):
                await jobs.registry["add"].within(transaction).aenqueue(1, 2)
        await engine.dispose()

    for how in (
        {"isolation_level": "AUTOCOMMIT"},
        {"execution_options": {"isolation_level": "AUTOCOMMIT"}},
    ):
        asyncio.run(main())
    assert ids(jobs) == []


@ONLY_SQLITE
def test_the_engines_own_begin_is_a_transaction(jobs: JobQueue, url: str) -> None:
    """SQLAlchemy's recipe for savepoints: the module begins nothing, the engine does."""
    add = jobs.registry["add"]
    with engine_of(url) as engine:
        event.listen(engine, "connect", lambda driver, _: setattr(driver, "isolation_level", None))
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        with Session(engine) as session:
            add.within(session).enqueue(1, 2)
            session.rollback()
            kept = add.within(session).enqueue(1, 2)
            session.commit()
        with Session(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
            with pytest.raises(InvalidOption, match="AUTOCOMMIT"):
                add.within(session).enqueue(1, 2)
    assert ids(jobs) == [kept.id]


class Base(DeclarativeBase): ...


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


def test_a_session_with_several_binds_says_what_to_give_and_takes_it(
    jobs: JobQueue, url: str, empty_url: str
) -> None:
    add = jobs.registry["add"]
    with engine_of(url) as engine, engine_of(empty_url) as elsewhere:
        Base.metadata.create_all(engine)
        with Session(binds={Order: engine}) as session:
            session.add(Order(id=1))
            with pytest.raises(InvalidOption, match="bind_arguments"):
                add.within(session).enqueue(1, 2)
            mine = session.connection(bind_arguments={"mapper": Order})
            job = add.within(mine).enqueue(1, 2)
            session.commit()
        assert ids(jobs) == [job.id]
        with Session(elsewhere, binds={Order: engine}) as session:
            with pytest.raises(ConfigurationError, match="no job queue"):
                add.within(session).enqueue(1, 2)


def test_a_session_that_reads_from_a_replica_enqueues_where_it_writes(
    jobs: JobQueue, url: str, empty_url: str
) -> None:
    from sqlalchemy import Update

    with engine_of(url) as leader, engine_of(empty_url) as replica:

        class Routed(Session):  # As SQLAlchemy's documentation has it.
            def get_bind(self, mapper=None, clause=None):
                return leader if self._flushing or isinstance(clause, Update) else replica

        with Routed() as session:
            job = jobs.registry["add"].within(session).enqueue(1, 2)
            session.commit()
    assert ids(jobs) == [job.id]


# Sessions that failed, have ended, or begin nothing by themselves


@pytest.mark.parametrize("method", ["within", "enqueue_many", "finish_within"])
def test_a_session_whose_flush_failed_says_so_in_every_method_and_goes_on_after_its_rollback(
    jobs: JobQueue, url: str, method: str
) -> None:
    add, use = jobs.registry["add"], methods(jobs)[method]
    with engine_of(url) as engine:
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Order(id=1))
            session.commit()
            session.expunge_all()
            add.within(session).enqueue(1, 2)
            session.add(Order(id=1))
            with pytest.raises(IntegrityError):
                session.flush()
            with pytest.raises(PendingRollbackError):
                use(session)
            session.rollback()
            kept = add.within(session).enqueue(3, 4)
            session.commit()
    assert ids(jobs) == [kept.id]


@pytest.mark.parametrize("method", ["within", "enqueue_many", "finish_within"])
def test_a_session_that_does_not_begin_by_itself_is_not_begun_for_it(
    jobs: JobQueue, url: str, method: str
) -> None:
    with engine_of(url) as engine, Session(engine, autobegin=False) as session:
        with pytest.raises(InvalidRequestError, match="Autobegin is disabled"):
            methods(jobs)[method](session)
        assert not session.in_transaction()
        with session.begin():
            kept = jobs.registry["add"].within(session).enqueue(1, 2)
    assert ids(jobs) == [kept.id]


@pytest.mark.parametrize("kind", ["session", "connection"])
def test_a_transaction_that_has_ended_is_followed_by_a_new_one(
    jobs: JobQueue, url: str, kind: str
) -> None:
    add = jobs.registry["add"]
    with engine_of(url) as engine:
        with Session(engine) if kind == "session" else engine.connect() as transaction:
            into = add.within(transaction)
            transaction.begin()
            transaction.commit()
            if kind == "session":
                transaction.close()  # It begins anew; a connection that is closed does not.
            kept = [into.enqueue(1, 2)]
            transaction.commit()
            gone = into.enqueue(3, 4)
            transaction.rollback()
            kept.append(into.enqueue(5, 6))
            assert transaction.in_transaction()
            transaction.commit()
            into.enqueue(7, 8)
        assert ids(jobs) == [job.id for job in kept]
        assert gone.id not in ids(jobs)
