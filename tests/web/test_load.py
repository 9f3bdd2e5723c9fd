"""Load: many connections, half of them slow or broken, and the others are served all the while."""

import itertools
import json
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.web import connections
from tests.web.conftest import Client, Connect, Serve, RawConnection, enqueue_text

pytestmark = [pytest.mark.slow, pytest.mark.databases("sqlite")]

CONNECTIONS = 200
EACH = 5  # enqueues of each good connection


def nothing(wire: RawConnection) -> None:
    """Connects, and says nothing."""


def half_a_header(wire: RawConnection) -> None:
    wire.send(f"POST /api/jobs HTTP/1.1\r\nHost: {wire.host}\r\nX-Slow: ")


def half_a_body(wire: RawConnection) -> None:
    wire.send(enqueue_text(wire.host)[:-5])


def garbage(wire: RawConnection) -> None:
    wire.send(b"\x16\x03\x01" + bytes(500) + b"\r\n\r\n")


def gone(wire: RawConnection) -> None:
    """Sends a request, and is not there for the answer: a reset."""
    wire.send(f"GET /api/jobs?limit=200 HTTP/1.1\r\nHost: {wire.host}\r\n\r\n")
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wire.socket.close()


def deaf(wire: RawConnection) -> None:
    """Asks for much, again and again, and reads nothing."""
    wire.send(f"GET /api/jobs?limit=200 HTTP/1.1\r\nHost: {wire.host}\r\n\r\n" * 20)


def waiting(wire: RawConnection) -> None:
    """Waits for a job that nobody runs."""
    wire.send(f"GET /api/jobs/1?wait=60 HTTP/1.1\r\nHost: {wire.host}\r\n\r\n")


BAD = [nothing, half_a_header, half_a_body, garbage, gone, deaf, waiting]


class Good:
    """A connection that enqueues, one job after the other."""

    def __init__(self, wire: RawConnection, number: int) -> None:
        self.wire = wire
        self.ids: list[int] = []
        self._number = number

    def send(self) -> None:
        self.wire.send(enqueue_text(self.wire.host, self._number))

    def receive(self) -> None:
        head, body = self.wire.answer()
        assert head.startswith("HTTP/1.1 202"), (head, body)
        self.ids.append(json.loads(body)["id"])


def test_enqueues_are_answered_among_slow_and_broken_clients(
    serve: Serve, connect: Connect, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of the 100 good connections is refused or cut, and each of their jobs is there, once."""
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 60)
    client = serve()
    jobs.registry["echo"].options(queue="idle").enqueue("x" * 100_000)
    bad = itertools.cycle(BAD)
    good: list[Good] = []
    for number in range(CONNECTIONS):
        if number % 2:
            next(bad)(connect(client))
        else:
            good.append(Good(connect(client), number))
    with selectors.DefaultSelector() as ready:
        for connection in good:
            ready.register(connection.wire.socket, selectors.EVENT_READ, connection)
            connection.send()
        while ready.get_map():
            events = ready.select(timeout=60)
            assert events, "nobody was answered for a minute"
            for key, _ in events:
                key.data.receive()
                if len(key.data.ids) < EACH:
                    key.data.send()
                else:
                    ready.unregister(key.fileobj)
    told = sorted(id_ for connection in good for id_ in connection.ids)
    there = sorted(job.id for job in jobs.list(queue="default", limit=None))
    assert len(told) == EACH * CONNECTIONS // 2
    assert told == there
    assert client.get("/healthz").status_code == 200


def test_slow_questions_do_not_hold_up_an_enqueue(
    client: Client, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads for reading hang, with more requests behind them."""
    from jobqueue.store.jobs import Jobs

    free = threading.Event()
    begun = threading.Semaphore(0)

    def hang(_: Any, _job: Any) -> list[Any]:
        begun.release()
        free.wait(60)
        return []

    id_ = client.enqueue(1, 1).json()["id"]
    monkeypatch.setattr(Jobs, "attempts", hang)
    statuses: list[int] = []

    def ask() -> None:
        with Client(base_url=client.base_url, timeout=60) as own:
            statuses.append(own.get(f"/api/jobs/{id_}").status_code)

    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    for _ in range(4):
        assert begun.acquire(timeout=30)
    try:
        assert client.enqueue(2, 3).status_code == 202
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
    finally:
        free.set()
        for thread in asking:
            thread.join(30)
    assert statuses == [200] * 8


@pytest.mark.parametrize(
    ("path", "body"),
    [("/api/jobs/cancel", '{"all": true}'), ("/api/queues/default/purge", "{}")],
)
def test_bulk_verbs_that_take_long_do_not_hold_up_an_enqueue(
    client: Client,
    connect: Connect,
    jobs: JobQueue,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: str,
) -> None:
    """More of them than there are threads for all that changes something."""
    from jobqueue.store.jobs import Jobs
    from jobqueue.store.queue_control import QueueControl

    free = threading.Event()

    def hang(*_: Any) -> Any:
        free.wait(60)
        return 0 if path.endswith("purge") else []

    id_ = client.id(1, 1)
    monkeypatch.setattr(QueueControl, "purge", hang)
    monkeypatch.setattr(Jobs, "_in_batches", hang)
    sent = [connect(client) for _ in range(8)]
    for wire in sent:
        kind, length = "Content-Type: application/json", f"Content-Length: {len(body)}"
        wire.request("POST", path, kind, length, body=body)
    try:
        assert client.get("/healthz").status_code == 200  # The server has read them all.
        assert client.enqueue(2, 3).status_code == 202
        assert client.post("/api/queues/default/pause").status_code == 200
        assert client.get(f"/api/jobs/{id_}").status_code == 200
    finally:
        free.set()
    assert [wire.status() for wire in sent] == [200] * 8


@pytest.mark.databases("sqlite", "postgres")
def test_what_waits_too_long_for_a_thread_is_refused_undone(
    client: Client, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobqueue.web import concurrency

    monkeypatch.setattr(concurrency, "THREAD_WAIT_MAX", 0.2)
    free, begun = threading.Event(), threading.Semaphore(0)
    enqueue = jobs.enqueue_many

    def hang(calls: Any, **how: Any) -> Any:
        begun.release()
        free.wait(60)
        return enqueue(calls, **how)

    monkeypatch.setattr(jobs, "enqueue_many", hang)
    statuses: list[int] = []

    def ask() -> None:
        with Client(base_url=client.base_url, timeout=60) as own:
            statuses.append(own.enqueue(2, 3).status_code)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for _ in range(4):
        assert begun.acquire(timeout=30)
    try:
        response = client.enqueue(2, 3)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert "nothing was done" in response.json()["error"]["message"]
    finally:
        free.set()
        for thread in asking:
            thread.join(30)
    assert statuses == [202] * 4
    assert len(list(jobs.list(limit=None))) == 4


def test_stopping_answers_what_is_under_way(
    serve: Serve, jobs: JobQueue, wait_until: Callable[..., Any]
) -> None:
    """Who waits for a job is told how it stands; slow ones are not waited for."""
    from jobqueue.web import Server, create_app

    echo = jobs.registry["echo"]
    jobs.enqueue_many([echo.call("x" * 500_000) for _ in range(40)])
    id_ = jobs.registry["add"].enqueue(2, 3).id
    server = Server(create_app(jobs), port=0, grace=0.5)
    server.start()
    wires = [RawConnection(server.url) for _ in range(4)]
    try:
        wires[0].request("GET", f"/api/jobs/{id_}?wait=60")
        half_a_header(wires[1])
        half_a_body(wires[2])
        deaf(wires[3])
        with Client(base_url=server.url) as client:
            assert client.get(f"/api/jobs/{id_}").status_code == 200
        server.stop()
        head, body = wires[0].answer()
        assert head.startswith("HTTP/1.1 200") and json.loads(body)["state"] == "available"
        assert all(wire.is_closed() for wire in wires[1:])
        with pytest.raises(OSError):
            RawConnection(server.url)
    finally:
        server.stop()
        for wire in wires:
            wire.socket.close()


def test_no_part_of_an_answer_is_held_back(jobs: JobQueue) -> None:
    """Nagle's algorithm and delayed acknowledgements would make it 40 ms later."""
    from jobqueue.web import Server, create_app

    server = Server(create_app(jobs), port=0, grace=1)
    with server, Client(base_url=server.url) as client:
        assert client.get("/healthz").status_code == 200
        (connection,) = server._uvicorn.server_state.connections
        own = connection.transport.get_extra_info("socket")
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
