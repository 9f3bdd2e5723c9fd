"""What is given as a transaction is checked at every door, and leads to this queue or is refused."""

import asyncio
import shutil
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, create_engine, event, make_url, text
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
from jobqueue.errors import ConfigurationError, InvalidOption, JobFailed, JobNotFound

ONLY_SQLITE = pytest.mark.parametrize("backend_name", ["sqlite"])
ONLY_POSTGRES = pytest.mark.parametrize("backend_name", ["postgres"])


def plain(url: str):
    """The URL as SQLAlchemy itself takes it."""
    return url.replace("postgresql:", "postgresql+psycopg:")


def asynchronous(url: str):
    return url.replace("postgresql:", "postgresql+psycopg:").replace("sqlite:", "sqlite+aiosqlite:")


@contextmanager
def engine_of(url: str, **options):
    engine = create_engine(plain(url), **options)
    yield engine
    engine.dispose()


@pytest.fixture
def jobs(url: str):
    with JobQueue(url) as jobs:

        @jobs.task(max_attempts=1)
        def add(x: int, y: int) -> int:
            return x + y

        yield jobs


def ids(jobs: JobQueue) -> list[int]:
    return sorted(record.id for record in jobs.list(limit=None))


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
            assert finish.enqueue().result(timeout=10) == "done"
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
            finish.enqueue().result(timeout=10)


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
        assert finish.enqueue().result(timeout=10) == "done"
    asyncio.run(engine.dispose())


# The wrong ones


def doors(jobs: JobQueue):
    """Each door for a transaction, as a function of what is given."""
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
        assert job.result(timeout=10) == "went on"
    jobs.delete(job.id)
    if caught:
        raise caught[0]


@pytest.mark.parametrize("door", ["within", "enqueue_many", "finish_within", "afinish_within"])
def test_what_is_not_a_transaction_is_refused_at_every_door_before_anything_is_written(
    jobs: JobQueue, url: str, door: str
) -> None:
    use = doors(jobs)[door]
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
    for door, use in doors(jobs).items():
        if door in ("aenqueue", "afinish_within"):
            instead = {
                "aenqueue": "add.within(session).enqueue(…)",
                "afinish_within": "current_job().finish_within(session)",
            }[door]
            with engine_of(url) as engine, Session(engine) as session, engine.connect() as bare:
                for given in (session, scoped_session(lambda: session), bare):
                    with pytest.raises(InvalidOption) as caught:
                        use(given)
                    assert str(caught.value) == (
                        f"{door}: {type(given).__name__} is not an AsyncSession or "
                        f"AsyncConnection; write {instead}"
                    )
                assert not session.in_transaction() and not bare.in_transaction()
        else:
            session = AsyncSession(create_async_engine(asynchronous(url)))
            remedy = {"within": "aenqueue", "enqueue_many": "run_sync"}.get(door, "afinish_within")
            with pytest.raises(InvalidOption, match=remedy):
                use(session)
    assert ids(jobs) == []


AUTOCOMMITS = ["engine", "options", "connection", "driver"]


@pytest.mark.parametrize("door", ["within", "enqueue_many", "finish_within"])
@pytest.mark.parametrize("kind", ["session", "connection"])
@pytest.mark.parametrize("how", AUTOCOMMITS)
def test_autocommit_is_refused_in_every_form(
    jobs: JobQueue, url: str, how: str, kind: str, door: str
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
                doors(jobs)[door](transaction)
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


@pytest.mark.parametrize("door", ["within", "enqueue_many", "finish_within"])
def test_a_session_whose_flush_failed_says_so_at_every_door_and_goes_on_after_its_rollback(
    jobs: JobQueue, url: str, door: str
) -> None:
    add, use = jobs.registry["add"], doors(jobs)[door]
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


@pytest.mark.parametrize("door", ["within", "enqueue_many", "finish_within"])
def test_a_session_that_does_not_begin_by_itself_is_not_begun_for_it(
    jobs: JobQueue, url: str, door: str
) -> None:
    with engine_of(url) as engine, Session(engine, autobegin=False) as session:
        with pytest.raises(InvalidRequestError, match="Autobegin is disabled"):
            doors(jobs)[door](session)
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


def lambda_free(x: int, y: int) -> int:
    return x + y


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


# The same database is a matter of the transaction


@pytest.fixture
def tenants(url: str):
    """Two queues in schemas of one database, the second a copy of the first with its instance id."""
    from jobqueue.store import migrate

    queues = {}
    for name in ("tenant_a", "tenant_b"):
        with engine_of(url) as engine, engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        joined = "&" if "?" in url else "?"
        queues[name] = f"{url}{joined}options=-c%20search_path%3D{name}"
        migrate.upgrade(queues[name])
    with engine_of(url) as engine, engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE tenant_b.jobqueue_meta SET value = (SELECT value FROM tenant_a.jobqueue_meta)"
            )
        )
    return queues


def counts(url: str) -> list[int]:
    with engine_of(url) as engine, engine.begin() as connection:
        return [
            connection.execute(text(f"SELECT count(*) FROM {name}.jobqueue_jobs")).scalar_one()
            for name in ("tenant_a", "tenant_b", "public")
        ]


@ONLY_POSTGRES
def test_a_search_path_does_not_lead_to_another_tenants_queue(url: str, tenants) -> None:
    with JobQueue(tenants["tenant_a"]) as jobs, engine_of(url) as engine:
        add = jobs.task(name="add")(lambda_free)
        for path in ("tenant_a", "tenant_b", "public"):
            with Session(engine) as session, session.begin():
                session.execute(text(f"SET LOCAL search_path = {path}"))
                add.within(session).enqueue(1, 2)
                jobs.enqueue_many([add.call(1, 2)] * 2, within=session)
                session.execute(text("SET LOCAL search_path = tenant_b"))  # Half-way, too.
                add.options(unique_key=path).within(session).enqueue(1, 2)
        assert counts(url) == [12, 0, 0]


@ONLY_POSTGRES
def test_finish_within_writes_the_jobs_own_row_whatever_the_search_path(url: str, tenants) -> None:
    with (
        JobQueue(tenants["tenant_a"]) as jobs,
        JobQueue(tenants["tenant_b"]) as others,
        engine_of(url) as engine,
    ):

        @jobs.task(max_attempts=1)
        def finish() -> None:
            with Session(engine) as session, session.begin():
                session.execute(text("SET LOCAL search_path = tenant_b"))
                current_job().finish_within(session, "paid")

        theirs = others.task(name="finish")(lambda_free).enqueue(1, 2)
        with jobs.worker():
            assert finish.enqueue().result(timeout=10) == "paid"
        assert theirs.state == "available"


@ONLY_POSTGRES
def test_a_role_with_another_path_or_without_the_right_to_read(url: str, tenants) -> None:
    role = make_url(url).database  # A name of this test's own; roles are of the whole server.
    with engine_of(url) as owner:
        with owner.begin() as connection:
            connection.execute(text(f"CREATE ROLE {role}"))
            connection.execute(text(f"ALTER ROLE {role} SET search_path = tenant_b"))
            connection.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA tenant_b TO {role}"))
            connection.execute(text(f"GRANT USAGE ON SCHEMA tenant_a, tenant_b TO {role}"))
        try:
            with JobQueue(tenants["tenant_a"]) as jobs:
                add = jobs.task(name="add")(lambda_free)
                with Session(owner) as session:
                    session.execute(text(f"SET LOCAL ROLE {role}"))
                    session.execute(text("SET LOCAL search_path = tenant_b"))
                    with pytest.raises(ConfigurationError, match="permission denied") as caught:
                        add.within(session).enqueue(1, 2)
                    assert "\n" not in str(caught.value)
            assert counts(url) == [0, 0, 0]
        finally:
            with owner.begin() as connection:
                connection.execute(text(f"DROP OWNED BY {role}"))
                connection.execute(text(f"DROP ROLE {role}"))


@ONLY_POSTGRES
def test_a_translated_schema_does_not_lead_elsewhere_and_stays_the_callers(
    url: str, tenants
) -> None:
    with JobQueue(tenants["tenant_a"]) as jobs, engine_of(url) as engine:
        add = jobs.task(name="add")(lambda_free)
        translated = engine.execution_options(schema_translate_map={None: "tenant_b"})
        with Session(translated) as session, session.begin():
            add.within(session).enqueue(1, 2)
            after = session.connection().get_execution_options()
            assert after["schema_translate_map"] == {None: "tenant_b"}
        assert counts(url) == [1, 0, 0]


def test_one_engine_that_leads_elsewhere_later_is_refused_then(
    jobs: JobQueue, url: str, empty_url: str
) -> None:
    """Such as one whose do_connect picks the tenant's database."""
    from jobqueue.store import migrate

    add = jobs.registry["add"]
    where = [url]
    with engine_of(url) as template:
        dialect = template.dialect

        def connect():
            _, options = dialect.create_connect_args(make_url(plain(where[0])))
            if jobs.store.backend.single_writer:
                import sqlite3

                return sqlite3.connect(make_url(where[0]).database)
            return dialect.loaded_dbapi.connect(**options)

        from sqlalchemy import NullPool

        with engine_of(url, creator=connect, poolclass=NullPool) as engine:
            with Session(engine) as session, session.begin():
                job = add.within(session).enqueue(1, 2)
            where[0] = empty_url
            with Session(engine) as session:
                with pytest.raises(ConfigurationError, match="cannot read|no job queue"):
                    add.within(session).enqueue(1, 2)
            migrate.upgrade(empty_url)
            with Session(engine) as session:
                with pytest.raises(ConfigurationError, match="another database"):
                    add.within(session).enqueue(1, 2)
    assert ids(jobs) == [job.id]


@ONLY_SQLITE
def test_a_copy_of_the_file_is_another_database(jobs: JobQueue, url: str, tmp_path) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(make_url(url).database, copy)
    with engine_of(f"sqlite:///{copy}") as engine, Session(engine) as session:
        with pytest.raises(ConfigurationError, match="another database"):
            jobs.registry["add"].within(session).enqueue(1, 2)


@ONLY_POSTGRES
def test_a_copy_of_the_database_is_another_one(jobs: JobQueue, postgres_server) -> None:
    """Such as a tenant's, made from a template that has the schema and so its instance id."""
    name = postgres_server.create(template=postgres_server.template)
    try:
        with engine_of(postgres_server.url(name)) as engine, Session(engine) as session:
            with pytest.raises(ConfigurationError, match="another database"):
                jobs.registry["add"].within(session).enqueue(1, 2)
    finally:
        postgres_server.drop(name)


@pytest.mark.parametrize("how", ["one by one", "bulk"])
def test_the_check_costs_one_select_per_transaction(jobs: JobQueue, url: str, how: str) -> None:
    add = jobs.registry["add"]
    with engine_of(url) as engine:
        with Session(engine) as session, session.begin():
            add.within(session).enqueue(1, 2)  # The first one looks whether the tables are there.
        seen: list[str] = []
        event.listen(engine, "before_cursor_execute", lambda *call: seen.append(call[2]))
        with Session(engine) as session, session.begin():
            for _ in range(3):
                if how == "bulk":
                    jobs.enqueue_many([add.call(1, 2)] * 5, within=session)
                else:
                    add.within(session).enqueue(1, 2)
    selects = [statement for statement in seen if statement.startswith("SELECT")]
    assert len([statement for statement in selects if "jobqueue_meta" in statement]) == 1
    assert len([statement for statement in seen if statement.startswith("INSERT INTO")]) >= 3
