"""The pool on PostgreSQL: its bound, its idle connections, and how long it waits for a server that has none free."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jobqueue.store import fork_safety
from jobqueue.store import pool as pool_module
from jobqueue.store.pool import BoundedPool, WaitPolicy
from jobqueue.store.dialects.postgres import _is_full
from jobqueue.store.database import Store

on_postgres = pytest.mark.databases("postgres")


class Server:
    """The test's database as its owner sees it; `url` is that of a role whose connections are counted and limited."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self.role = make_url(
            url
        ).database  # Unlike the database, a role is not dropped by the fixture.
        self._run(f"CREATE ROLE {self.role} LOGIN")
        self.url = make_url(url).set(username=self.role).render_as_string()

    def _run(self, statement: str) -> Any:
        return self._connection.execute(statement)

    def allow(self, connections: int) -> None:
        self._run(f"ALTER ROLE {self.role} CONNECTION LIMIT {connections}")

    def open(self) -> int:
        of_role = f"FROM pg_stat_activity WHERE usename = '{self.role}'"
        return int(self._run(f"SELECT count(*) {of_role}").fetchone()[0])

    def disconnect(self) -> None:
        self._run(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{self.role}'"
        )

    def close(self) -> None:
        self.disconnect()
        self._run(f"DROP ROLE {self.role}")
        self._connection.close()


@pytest.fixture
def server(empty_url: str) -> Iterator[Server]:
    server = Server(empty_url)
    yield server
    server.close()


@pytest.fixture
def open_store(server: Server) -> Iterator[Callable[..., Store]]:
    """A function that makes a store of the limited role; keywords are those of Store."""
    opened: list[Store] = []

    def make(**given: Any) -> Store:
        opened.append(Store(server.url, **given))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def ask(store: Store, seconds: float = 0.0) -> None:
    with store.engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "jobqueue.store" and record.levelno >= logging.INFO
    ]


@on_postgres
def test_twenty_threads_share_three_connections(server: Server, open_store: Any) -> None:
    store, most = open_store(connections=3), []
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(ask, store, 0.02) for _ in range(60)]
        while not all(each.done() for each in asked):
            most.append(server.open())
    for each in asked:
        each.result()
    assert max(most) == 3


@on_postgres
def test_one_after_another_need_one_connection(server: Server, open_store: Any) -> None:
    store = open_store(connections=3)
    for _ in range(5):
        ask(store)
    assert server.open() == 1


@on_postgres
def test_a_lent_connection_is_one_of_the_pools_and_comes_back_after_an_error(
    server: Server, open_store: Any
) -> None:
    store = open_store(connections=2)
    pool = store.engine.pool
    for _ in range(3):
        with pytest.raises(psycopg.errors.DivisionByZero), pool.lend() as connection:
            connection.driver_connection.autocommit = True
            assert pool.checkedout() == 1
            connection.driver_connection.execute("SELECT 1 / 0")
        connection.driver_connection.autocommit = False
        assert (pool.checkedout(), server.open()) == (0, 1)
    ask(store)
    assert server.open() == 1


@on_postgres
def test_connections_that_nobody_uses_are_closed(
    server: Server, open_store: Any, wait_until: Any
) -> None:
    store = open_store(connections=3, idle=0.3)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: ask(store, 0.2), range(3)))
    assert server.open() == 3
    wait_until(lambda: server.open() == 0)
    ask(store)


@on_postgres
def test_one_that_is_used_is_kept_while_its_neighbours_are_closed(
    server: Server, open_store: Any, wait_until: Any
) -> None:
    store = open_store(connections=3, idle=0.5)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: ask(store, 0.2), range(3)))

    def used_and_alone() -> bool:
        ask(store)
        return server.open() == 1

    wait_until(used_and_alone)
    with store.engine.connect() as connection:
        kept = connection.execute(text("SELECT pg_backend_pid()")).scalar()
    until = monotonic() + 1.5
    while monotonic() < until:
        with store.engine.connect() as connection:
            assert connection.execute(text("SELECT pg_backend_pid()")).scalar() == kept


@on_postgres
def test_what_is_in_use_when_the_pool_is_disposed_of_is_closed_when_it_comes_back(
    server: Server, open_store: Any, wait_until: Any
) -> None:
    store = open_store(idle=60)
    with store.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        store.close()
        assert server.open() == 1
    wait_until(lambda: server.open() == 0)


@on_postgres
def test_a_full_server_is_waited_for_and_said_once(
    server: Server, open_store: Any, wait_until: Any, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "jobqueue")
    wait_policy = WaitPolicy()
    stores = [open_store(wait_policy=wait_policy) for _ in range(3)]
    server.allow(0)
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(ask, store) for store in stores]
        wait_until(lambda: lines(caplog))
        threading.Event().wait(1)
        assert not any(each.done() for each in asked)
        [line] = lines(caplog)
        assert "no connection free" in line
        assert "too many connections for role" in line
        server.allow(3)
        for each in asked:
            each.result(60)
    assert len(lines(caplog)) == 2


@on_postgres
def test_the_wait_ends_with_what_the_server_has_said(server: Server, open_store: Any) -> None:
    server.allow(0)
    with pytest.raises(OperationalError, match="too many connections for role"):
        ask(open_store(wait_policy=WaitPolicy(0.5)))
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, open_store(wait_policy=WaitPolicy(60, stop.is_set)))
        with pytest.raises(TimeoutError):
            asked.result(0.5)
        stop.set()
        with pytest.raises(OperationalError, match="too many connections for role"):
            asked.result(60)


@on_postgres
def test_the_wait_ends_when_all_connections_of_the_pool_stay_in_use(open_store: Any) -> None:
    store = open_store(connections=1, wait_policy=WaitPolicy(0.5))
    with store.engine.connect(), pytest.raises(PoolTimeout, match="pool_size"):
        ask(store)


@on_postgres
def test_one_of_ours_that_comes_back_serves_while_the_server_is_full(
    server: Server, open_store: Any, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "jobqueue")
    store = open_store(connections=2)
    server.allow(1)
    ask(store)
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(ask, store, 0.05) for _ in range(20)]
        for each in asked:
            each.result(60)
    assert lines(caplog) == []


@on_postgres
def test_a_lost_connection_is_made_again_with_the_same_wait_policy(
    server: Server, open_store: Any, wait_until: Any, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "jobqueue")
    store = open_store(connections=2)
    with store.engine.connect() as connection, store.engine.connect() as another:
        another.execute(text("SELECT 1"))
        connection.execute(text("SELECT 1"))
        another.close()
        server.disconnect()
        with pytest.raises(OperationalError, match="terminat"):
            connection.execute(text("SELECT 1"))  # From now on the other one counts as lost too.
    server.allow(0)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, store)
        wait_until(lambda: lines(caplog))
        server.allow(1)
        asked.result(60)


@on_postgres
def test_a_wrong_database_is_an_error_at_once(server: Server) -> None:
    url = make_url(server.url).set(database="nowhere").render_as_string()
    with pytest.raises(OperationalError, match="does not exist"):
        Store(url).revision()


@pytest.mark.parametrize(
    ("said", "is_full"),
    [
        ("FATAL:  sorry, too many clients already", True),
        ('FATAL:  too many connections for role "app"', True),
        ('FATAL:  too many connections for database "app"', True),
        (
            "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
            True,
        ),
        ("FATAL:  no more connections allowed (max_client_conn)", True),
        ('FATAL:  password authentication failed for user "app"', False),
        ('FATAL:  database "app" does not exist', False),
        ("connection refused", False),
    ],
)
def test_what_a_full_server_says_is_told_from_other_refusals(said: str, is_full: bool) -> None:
    assert _is_full(psycopg.OperationalError(said)) is is_full


@on_postgres
def test_an_idle_connection_of_ours_says_nothing_about_a_full_server(
    server: Server, open_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes one must not send the next one to a server that has just refused."""
    store = open_store(connections=2, wait_policy=WaitPolicy(0.0))
    server.allow(1)
    refused: list[int] = []
    made = BoundedPool._refused
    monkeypatch.setattr(
        BoundedPool, "_refused", lambda pool, error: (refused.append(1), made(pool, error))
    )
    monkeypatch.setattr(pool_module, "RETRY_FIRST_SECONDS", 60.0)
    monkeypatch.setattr(pool_module, "RETRY_MAX_SECONDS", 60.0)
    for _ in range(5):
        with store.engine.connect(), pytest.raises(OperationalError, match="too many"):
            store.engine.connect()
    assert len(refused) == 1


@on_postgres
def test_an_idle_connection_that_the_server_ended_is_made_again_with_a_wait(
    server: Server, open_store: Any, wait_until: Any
) -> None:
    store = open_store(connections=1)
    ask(store)
    server.allow(0)
    server.disconnect()
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, store)
        wait_until(lambda: store.engine.pool._refusals)
        server.allow(1)
        asked.result(30)


def test_a_pools_locks_are_reentrant() -> None:
    """A signal's handler may take a connection in the midst of another one's turn."""
    store = Store("postgresql://nobody@nowhere/nothing")
    for lock in (store.engine.pool._lock, store.engine.pool._wait_policy._lock):
        with lock:
            assert lock.acquire(blocking=False)
            lock.release()


def test_a_forked_child_waits_for_nobody_whom_its_parent_had() -> None:
    wait_policy = WaitPolicy()
    old = wait_policy._lock
    wait_policy._waiting[object()] = 0.0
    wait_policy.after_fork_in_child()
    assert wait_policy._lock is not old
    assert wait_policy._waiting == {}
    assert wait_policy in fork_safety._holders
