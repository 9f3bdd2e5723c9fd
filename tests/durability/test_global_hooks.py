"""What an application hangs onto SQLAlchemy's Engine class, or onto its driver, is harmless to the queue."""

import sqlite3
import sys
from contextlib import closing

import pytest
from sqlalchemy import Engine, event, make_url, text
from sqlalchemy.pool import Pool

from jobqueue import JobQueue, current_job
from jobqueue.store.notify.notifier import Wakeup
from tests import process_factory

pytestmark = pytest.mark.slow

ONLY_SQLITE = pytest.mark.databases("sqlite")
ONLY_POSTGRES = pytest.mark.databases("postgres")


def on_sqlite(thing) -> bool:
    return (
        isinstance(thing, sqlite3.Connection)
        or getattr(thing, "dialect", None) is not None
        and (thing.dialect.name == "sqlite")
    )


def pragmas(driver, _record) -> None:
    if on_sqlite(driver):
        for pragma in ("foreign_keys=ON", "synchronous=NORMAL", "busy_timeout=100", "mmap_size=0"):
            driver.execute(f"PRAGMA {pragma}")


def rows_and_bytes(driver, _record) -> None:
    if on_sqlite(driver):
        driver.row_factory, driver.text_factory = sqlite3.Row, bytes


def no_begin(driver, _record) -> None:
    if on_sqlite(driver):
        driver.isolation_level = None


def begin(connection) -> None:
    if on_sqlite(connection):
        connection.exec_driver_sql("BEGIN")


def settings(driver, _record) -> None:
    if not on_sqlite(driver):
        driver.execute("SET TIME ZONE 'Asia/Tokyo'")
        driver.execute("SET statement_timeout = '30s'")


def comment(_connection, _cursor, statement, parameters, _context, _many):
    return f"/* app:web */ {statement} /* app:web */", parameters


def audit(connection, _cursor, statement, *_) -> None:
    if on_sqlite(connection):
        driver = connection.connection.driver_connection
        driver.execute("CREATE TEMPORARY TABLE IF NOT EXISTS audit (id INTEGER PRIMARY KEY, said)")
        driver.execute("INSERT INTO temp.audit (said) VALUES (?)", (statement[:20],))


def begin_at_checkout(driver, _record, _proxy) -> None:
    if on_sqlite(driver) and not driver.in_transaction:
        driver.execute("BEGIN")


def give_back(driver, _record) -> None:
    if driver is not None:
        driver.rollback()


HOOKS = {
    "pragmas": [(Engine, "connect", pragmas, {})],
    "factories": [(Engine, "connect", rows_and_bytes, {})],
    "the recipe for savepoints": [(Engine, "connect", no_begin, {}), (Engine, "begin", begin, {})],
    "settings": [(Engine, "connect", settings, {})],
    "comments": [(Engine, "before_cursor_execute", comment, {"retval": True})],
    "an audit": [(Engine, "after_cursor_execute", audit, {})],
    "a transaction while checked out": [
        (Pool, "checkout", begin_at_checkout, {}),
        (Pool, "checkin", give_back, {}),
    ],
}


@pytest.fixture
def hooked(request: pytest.FixtureRequest):
    hooks = HOOKS[request.param]
    for target, name, function, how in hooks:
        event.listen(target, name, function, **how)
    yield
    for target, name, function, _ in hooks:
        event.remove(target, name, function)


@pytest.mark.parametrize("hooked", HOOKS, indirect=True)
def test_hooks_on_all_engines_are_harmless(url: str, hooked) -> None:
    with JobQueue(url) as jobs:

        @jobs.task
        def add(x: int, y: int) -> int:
            return x + y

        @jobs.task(max_attempts=2, timeout=30)
        def flaky() -> str:
            if current_job().attempt < 2:
                raise ValueError("once")
            current_job().progress(0.5, "half")
            return "at last"

        jobs.store.require_schema()
        with jobs.worker():
            made = jobs.enqueue_many([add.call(n, n) for n in range(30)])
            job = flaky.options(unique_key="k", delay=0.1, deadline=60).enqueue()
            assert sum(each.result(timeout=30) for each in made) == 870
            assert add.enqueue(1, 2).result(timeout=30) == 3
            assert job.result(timeout=30) == "at last"
        assert len(list(jobs.list())) == 32


@ONLY_SQLITE
@pytest.mark.parametrize("hooked", ["pragmas", "the recipe for savepoints"], indirect=True)
def test_a_hook_does_not_change_how_commits_are_synced_or_writers_wait(url: str, hooked) -> None:
    with JobQueue(url) as jobs:
        with jobs.store.read() as connection:
            found = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("synchronous", "busy_timeout")
            ]
        assert found == [2, 10_000]
        with (
            jobs.store.write(),
            closing(sqlite3.connect(make_url(url).database, timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("BEGIN IMMEDIATE")


@ONLY_SQLITE
@pytest.mark.parametrize("hooked", ["a transaction while checked out"], indirect=True)
def test_what_a_hook_began_neither_holds_back_an_enqueue_nor_hides_one(url: str, hooked) -> None:
    with (
        JobQueue(url) as jobs,
        closing(jobs.store.backend.subscription(jobs.store.url)) as subscription,
        closing(sqlite3.connect(make_url(url).database, timeout=0)) as other,
    ):

        @jobs.task
        def nothing() -> None: ...

        assert subscription.wait(60) is Wakeup.COMMIT  # The first look.
        made = nothing.enqueue()
        assert other.execute("SELECT id FROM jobqueue_jobs").fetchall() == [(made.id,)]
        assert subscription.wait(60) is not Wakeup.NOTHING
        other.execute("BEGIN IMMEDIATE")


@ONLY_POSTGRES
@pytest.mark.parametrize("hooked", ["settings"], indirect=True)
def test_what_a_hook_left_open_is_rolled_back(url: str, hooked) -> None:
    with JobQueue(url) as jobs, jobs.store.read() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "0"


@ONLY_POSTGRES
def test_a_hook_that_makes_the_password_goes_on_working(url: str) -> None:
    """Such as a token of a cloud that is good for some minutes."""
    asked: list[str] = []

    def connecting(dialect, _record, _arguments, parameters) -> None:
        asked.append(parameters.get("password"))
        parameters["password"] = f"token {len(asked)}"
        parameters["application_name"] = parameters["password"]

    event.listen(Engine, "do_connect", connecting)
    try:
        with JobQueue(url) as jobs:
            for number in (1, 2):
                with jobs.store.read() as connection:
                    named = connection.execute(text("SHOW application_name")).scalar()
                assert named == f"token {number}"
                jobs.store.close()
    finally:
        event.remove(Engine, "do_connect", connecting)


# In a process of its own: what is registered globally cannot be taken back.
SQLITE3 = """
import datetime, decimal, enum, sqlite3, uuid
sqlite3.register_adapter(datetime.datetime, lambda instant: instant.timestamp())
sqlite3.register_adapter(decimal.Decimal, float)
sqlite3.register_adapter(dict, repr)
sqlite3.register_adapter(list, repr)
sqlite3.register_adapter(enum.StrEnum, lambda value: value.name)
for name in ("TEXT", "INTEGER", "DATETIME", "TIMESTAMP", "DATE", "DOUBLE", "FLOAT"):
    sqlite3.register_converter(name, lambda value: value.decode().upper() + "!")
"""
PSYCOPG = """
import psycopg
from psycopg.types.numeric import FloatLoader, NumericLoader
from psycopg.types.string import StrDumperVarchar, TextLoader
psycopg.adapters.register_loader("numeric", FloatLoader)
psycopg.adapters.register_loader("timestamptz", TextLoader)
for name in ("int2", "int4", "int8", "float8", "oid"):
    psycopg.adapters.register_loader(name, NumericLoader)
psycopg.adapters.register_dumper(str, StrDumperVarchar)
"""
GLOBALS = """
import datetime, sys
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from jobqueue import JobQueue, QueueFull, current_job
url, options = sys.argv[1:]
jobs = JobQueue(url + options)
engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))

@jobs.task(timeout=30)
def add(x: int, y: int) -> int:
    return x + y

@jobs.task(max_attempts=1)
def pay() -> None:
    with Session(engine) as session, session.begin():
        current_job().finish_within(session, "paid")

with Session(engine) as session, session.begin():
    one = add.within(session).enqueue(1, 2)
    keyed = add.options(unique_key="k", delay=0.1).within(session).enqueue(3, 4)
    same = add.options(unique_key="k").within(session).enqueue(3, 4)
    many = jobs.enqueue_many([add.call(n, n) for n in range(20)], within=session)
    bounded = jobs.queue("bounded", max_pending=1)
    full = add.options(queue=bounded)
    full.within(session).enqueue(1, 1)
    try:
        full.within(session).enqueue(1, 1)
    except QueueFull as error:
        assert isinstance(error.retry_after, float), error.retry_after
assert {type(job.id) for job in (one, keyed, same, *many)} == {int}
assert keyed.id == same.id
at = datetime.datetime(2100, 1, 2, 3, 4, 5, 6, datetime.UTC)
assert add.options(at=at).enqueue(1, 2).record().run_at == at
with jobs.worker():
    print(one.result(30), keyed.result(30), sum(job.result(30) for job in many), pay.enqueue().result(30))
assert {job.created_at.utcoffset() for job in jobs.list()} == {datetime.timedelta(0)}
engine.dispose()
jobs.close()
"""


def test_adapters_that_a_driver_has_for_all_change_nothing_that_is_read_or_written(
    url: str, backend_name: str
) -> None:
    # Converters are used where detect_types asks for them; the application may share its URL.
    registered, options = {"sqlite": (SQLITE3, "?detect_types=3"), "postgres": (PSYCOPG, "")}[
        backend_name
    ]
    program = registered + GLOBALS
    done = process_factory.run([sys.executable, "-c", program, url, options])
    assert (done.stdout, done.returncode) == ("3 7 380 paid\n", 0), done.stderr
