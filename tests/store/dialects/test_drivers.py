"""Databases reached by URLs that were written for another driver, or that name several hosts."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import psycopg
import pytest
from sqlalchemy import URL, make_url, text

from jobqueue.store import migrate
from jobqueue.store.database import Store


def answers(url: str) -> bool:
    store = Store(url)
    try:
        with store.write() as connection:
            return bool(connection.execute(text("SELECT 1")).scalar())
    finally:
        store.close()


@pytest.mark.databases("postgres")
@pytest.mark.parametrize(
    ("driver", "query"),
    [
        ("postgres", {}),
        ("postgresql+psycopg_async", {"prepare_threshold": "0"}),
        ("postgresql+psycopg2", {"client_encoding": "utf8", "connect_timeout": "3"}),
        ("postgresql+asyncpg", {"ssl": "prefer", "timeout": "5", "command_timeout": "5"}),
        ("postgresql+asyncpg", {"prepared_statement_cache_size": "0", "statement_cache_size": "0"}),
        ("postgresql+pg8000", {"application_name": "mine"}),
        ("postgresql", {"options": "-c statement_timeout=30000", "schema": "public"}),
        ("postgresql", {"pgbouncer": "true", "sslmode": "prefer"}),
    ],
)
def test_a_url_of_another_driver_reaches_the_same_database(
    url: str, driver: str, query: dict[str, str]
) -> None:
    theirs = make_url(url).set(drivername=driver).update_query_dict(query)
    assert answers(theirs.render_as_string(hide_password=False))


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "form",
    [
        "sqlite+aiosqlite:///{}?timeout=15",
        "sqlite:///{}?cache=shared",
        "sqlite:///file:{}?mode=rwc&uri=true&cache=shared",
    ],
)
def test_a_url_of_another_form_reaches_the_same_file(url: str, form: str) -> None:
    assert answers(form.format(make_url(url).database))


@pytest.mark.databases("postgres")
def test_a_schema_in_the_url_is_where_the_tables_are(empty_url: str) -> None:
    """As Prisma has it: what is made goes there too."""
    elsewhere = make_url(empty_url).update_query_dict({"schema": "my App"})
    theirs = elsewhere.render_as_string(hide_password=False)
    with psycopg.connect(empty_url) as connection:
        connection.execute('CREATE SCHEMA "my App"')
    migrate.upgrade(theirs)
    assert answers(theirs)
    store = Store(empty_url)
    assert store.revision() is None
    store.close()


@contextmanager
def relayed(to: str) -> Iterator[int]:
    """A port of this machine's that leads to a Unix socket."""
    with ExitStack() as opened:
        listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        threads: list[threading.Thread] = []

        def copy(source: socket.socket, target: socket.socket) -> None:
            with suppress(OSError):
                while piece := source.recv(65536):
                    target.sendall(piece)
                target.shutdown(socket.SHUT_WR)

        def begin(work: Callable[..., None], *arguments: socket.socket) -> None:
            threads.append(threading.Thread(target=work, args=arguments))
            threads[-1].start()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    theirs = opened.enter_context(listening.accept()[0])
                    ours = opened.enter_context(socket.socket(socket.AF_UNIX))
                    ours.connect(to)
                    begin(copy, theirs, ours)
                    begin(copy, ours, theirs)

        begin(serve)
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.mark.databases("postgres")
@pytest.mark.parametrize(
    "form",
    [
        "postgresql://{user}@127.0.0.1:{dead},127.0.0.1:{alive}/{database}",
        "postgresql://{user}@127.0.0.1:{dead},localhost:{alive}/{database}"
        "?target_session_attrs=read-write",
        "postgresql+asyncpg://{user}@/{database}?host=127.0.0.1:{dead}&host=127.0.0.1:{alive}",
    ],
)
def test_of_several_hosts_the_one_that_answers_is_used(url: str, form: str) -> None:
    given: URL = make_url(url)
    with relayed(f"{given.query['host']}/.s.PGSQL.5432") as alive:
        hosts = form.format(
            user=given.username, dead=dead_port(), alive=alive, database=given.database
        )
        assert answers(hosts)
