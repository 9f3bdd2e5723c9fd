"""A given transaction leads to the queue's own database, whatever its search path, role or engine."""

import shutil

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.orm import (
    Session,
)

from jobqueue import JobQueue, current_job
from jobqueue.errors import ConfigurationError
from tests.durability.conftest import (
    ONLY_POSTGRES,
    ONLY_SQLITE,
    engine_of,
    ids,
    lambda_free,
    plain,
)

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
            assert finish.enqueue().result(timeout=60) == "paid"
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
