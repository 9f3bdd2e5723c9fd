"""What a role or a database has set changes nothing that is read or written, by way of a pooler neither."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from pooler import Pooler
from sqlalchemy import create_engine, make_url, text, update
from sqlalchemy.orm import Session

from jobqueue import JobQueue, QueueFull, current_job
from jobqueue.records import Registration
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.states import State
from jobqueue.store.claims import Claims, WorkerRef
from jobqueue.store.migrate import upgrade
from jobqueue.store.database import Store
from jobqueue.store.leases import Leases

POSTGRES = pytest.mark.databases("postgres")
ZONE = "TimeZone = 'Europe/Zurich'"
SETTINGS = [
    "DateStyle = 'SQL, DMY'",
    "DateStyle = 'German'",
    "IntervalStyle = 'sql_standard'",
    ZONE,
    "TimeZone = 'Africa/Monrovia'",
    "client_encoding = 'LATIN1'",
    "standard_conforming_strings = off",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "idle_session_timeout = '1s'",
]
POOLED = ["DateStyle = 'German'", ZONE, "client_encoding = 'LATIN1'"]
PATH = "search_path = public, pg_catalog"
TEXT = 'grüße 你好 \U0001f600 \\ "'
# The clocks went back at 01:00 UTC: wall clocks in Zurich show one time at both.
BEFORE, AFTER = datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


def alter(url: str, setting: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{make_url(url).database}" SET {setting}')


@contextmanager
def direct(url: str) -> Iterator[str]:
    yield url


@contextmanager
def pooled(url: str) -> Iterator[str]:
    with Pooler(url) as pooler:
        yield pooler.url
        assert pooler.refused == set()


WAYS = pytest.mark.parametrize("way", [direct, pooled])


@contextmanager
def queue(url: str) -> Iterator[tuple[JobQueue, Any]]:
    jobs = JobQueue(url)

    @jobs.task
    def echo(value: str) -> str:
        left = current_job().remaining()
        assert left is None or 3000 < left <= 3600, left
        return value

    try:
        yield jobs, echo
    finally:
        jobs.close()


@POSTGRES
@pytest.mark.parametrize(
    ("way", "setting"),
    [(direct, setting) for setting in SETTINGS] + [(pooled, setting) for setting in POOLED],
)
def test_jobs_run_whatever_the_database_has_set(
    url: str, way: Callable[[str], Any], setting: str
) -> None:
    alter(url, setting)
    with way(url) as by, queue(by) as (jobs, echo):
        handles = [echo.enqueue(TEXT), echo.options(deadline=3600, unique_key=TEXT).enqueue(TEXT)]
        handles += jobs.enqueue_many([echo.call(TEXT), echo.options(at=BEFORE).call(TEXT)])
        with jobs.worker(drain=True, poll=0.2) as worker:
            assert worker.wait(30)
        assert [job.result(timeout=0) for job in handles] == [TEXT] * 4
        for job in handles:
            record = job.record()
            for instant in (record.created_at, record.started_at, record.finished_at):
                assert instant is not None and instant.tzinfo is UTC
                assert abs(datetime.now(UTC) - instant) < timedelta(minutes=5)
            assert record.duration is not None and 0 <= record.duration < 30


@pytest.mark.parametrize("way", [direct, pooled])
def test_instants_on_either_side_of_a_change_of_clocks_are_an_hour_apart(
    url: str, backend_name: str, way: Callable[[str], Any]
) -> None:
    if backend_name == "sqlite":
        way = direct
    else:
        alter(url, ZONE)
    with way(url) as by, queue(by) as (_, echo):
        store = Store(by)
        job = echo.enqueue("")
        columns = {
            "run_at": BEFORE,
            "started_at": BEFORE,
            "finished_at": AFTER,
            "deadline_at": AFTER,
        }
        with store.write() as connection:
            connection.execute(update(jobs_table).values(columns))
        record = job.record()
        assert record.duration == 3600
        for name, instant in columns.items():
            found = getattr(record, name)
            assert found == instant and found.tzinfo is UTC
        store.close()


@pytest.mark.parametrize("way", [direct, pooled])
def test_claims_have_instants_in_utc_by_either_statement(
    url: str, backend_name: str, way: Callable[[str], Any], wait_until: Callable[..., Any]
) -> None:
    if backend_name == "sqlite":
        way = direct
    else:
        alter(url, ZONE)
    with way(url) as by, queue(by) as (_, echo):
        store = Store(by)
        me = WorkerRef(Leases(store).register(registration()), "me")
        claims = Claims(store)
        echo.options(deadline=3600).enqueue("")
        # Nothing where SQLite's file was locked just then.
        alone = wait_until(lambda: claims.claim_first(me, "default", 1))
        echo.options(deadline=3600).enqueue("")
        with store.write() as connection:
            (head,) = claims.next_queues(connection, limit=1)
            batch = claims.claim(connection, me, head.queue, limit=1, free=1)
        for (claim,) in (alone, batch):
            assert claim.deadline_at is not None
            for instant in (claim.run_at, claim.started_at, claim.deadline_at):
                assert instant.tzinfo is UTC
        store.close()


@POSTGRES
@WAYS
@pytest.mark.parametrize("setting", ["DateStyle = 'German'", ZONE])
def test_a_transaction_of_the_users_may_have_any_setting(
    url: str, way: Callable[[str], Any], setting: str
) -> None:
    alter(url, setting)
    at = BEFORE + timedelta(days=3650)
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with way(url) as by, queue(by) as (jobs, echo):
        jobs.queue("few", max_pending=1, when_full="reject")

        @jobs.task(queue="few")
        def few() -> None: ...

        @jobs.task
        def finish() -> None:
            with Session(engine) as session, session.begin():
                current_job().finish_within(session)

        with Session(engine) as session, session.begin():
            later = echo.options(at=at).within(session).enqueue("")
            (many,) = jobs.enqueue_many([echo.options(at=at).call("")], within=session)
            finished = finish.within(session).enqueue()
            few.within(session).enqueue()
            with pytest.raises(QueueFull):
                few.within(session).enqueue()
        assert later.record().run_at == many.record().run_at == at
        with jobs.worker(poll=0.2):
            finished.result(timeout=30)
    engine.dispose()


@POSTGRES
def test_nothing_is_set_by_way_of_a_pooler_that_its_next_client_would_inherit(url: str) -> None:
    alter(url, "DateStyle = 'German'")
    alter(url, ZONE)
    with pooled(url) as by:
        store = Store(by, connections=1)
        with store.read() as connection:
            assert connection.execute(text("SHOW DateStyle")).scalar() == "ISO, DMY"
        with closing(store.engine.raw_connection()) as kept:
            shown = [
                kept.driver_connection.execute(f"SHOW {name}").fetchone()[0]
                for name in ("DateStyle", "TimeZone", "IntervalStyle")
            ]
        assert shown == ["German, DMY", "Europe/Zurich", "postgres"]
        store.close()


@POSTGRES
def test_without_a_pooler_a_session_has_our_settings_and_the_roles_search_path(url: str) -> None:
    for setting in ("DateStyle = 'German'", ZONE, "IntervalStyle = 'iso_8601'", PATH):
        alter(url, setting)
    store = Store(url, connections=1)
    with store.read() as connection:
        for name, value in {
            "DateStyle": "ISO, DMY",
            "TimeZone": "UTC",
            "IntervalStyle": "postgres",
            "client_encoding": "UTF8",
            "standard_conforming_strings": "on",
            "search_path": "public, pg_catalog",
        }.items():
            assert connection.execute(text(f"SHOW {name}")).scalar() == value
    store.close()


@POSTGRES
@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("UTF8", TEXT),
        ("SQL_ASCII", TEXT),
        ("LATIN1", r"grüße \u4f60\u597d \ud83d\ude00 " + '\\ "'),
        ("WIN1251", r"gr\u00fc\u00dfe \u4f60\u597d \ud83d\ude00 " + '\\ "'),
    ],
)
def test_text_that_the_databases_encoding_lacks_comes_back_equal(
    postgres_server: Any, encoding: str, message: str, backend_name: str
) -> None:
    template = f"template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    name = f"jobqueue_test_{encoding.lower()}_{secrets.token_hex(4)}"
    postgres_server._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    url = postgres_server.url(name)
    upgrade(url)
    with queue(url) as (jobs, echo):

        @jobs.task(max_attempts=1)
        def fail() -> None:
            raise ValueError(TEXT)

        handles = [echo.enqueue(TEXT), *jobs.enqueue_many([echo.call(TEXT), echo.call(TEXT)])]
        failed = fail.enqueue()
        with jobs.worker(drain=True, poll=0.2) as worker:
            assert worker.wait(30)
        assert [job.result(timeout=0) for job in handles] == [TEXT] * 3
        error = failed.record().error
        assert error is not None
        assert error.message == message
    postgres_server.drop(name)


@POSTGRES
def test_a_claim_alone_is_left_to_a_transaction_where_only_that_can_read_it(url: str) -> None:
    alter(url, "DateStyle = 'German'")
    with pooled(url) as by, queue(by) as (_, echo):
        store = Store(by)
        me = WorkerRef(Leases(store).register(registration()), "me")
        job = echo.enqueue("")
        assert Claims(store).claim_first(me, "default", 1) == []
        assert job.record().state is State.AVAILABLE
        store.close()


@POSTGRES
def test_statements_that_prefer_indexes_are_not_compiled(url: str) -> None:
    alter(url, "jit = on")
    with closing(Store(url)) as store, store.read() as connection:
        assert connection.scalar(text("SHOW jit")) == "on"
        store.backend.prefer_indexes(connection)
        assert connection.scalar(text("SHOW jit")) == "off"


def registration() -> Registration:
    return Registration("me", "here", 1, None, None, None, None, None, ("echo",), 1, 30.0)
