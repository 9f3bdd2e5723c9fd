"""Row 54 of the catalogue of bad input: clients that are slow, silent or too many; each is cut off, and nothing is enqueued by it."""

from collections.abc import Callable
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.web import connections
from tests.web.bad_requests.conftest import HTTP_ONLY, still_serves
from tests.web.conftest import Client, Connect, Serve

pytestmark = HTTP_ONLY


# 54: slow clients


@pytest.fixture
def hasty(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client of a server that waits 0.6 s for a request."""
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.6)
    return serve()


HALF = "GET /healthz HTTP/1.1\r\nHost: {host}\r\nX-Never: "
BODYLESS = (
    "POST /api/jobs HTTP/1.1\r\nHost: {host}\r\nContent-Type: %s\r\nContent-Length: 99\r\n\r\n"
)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, ""),
        (0, HALF),
        (0, BODYLESS % "application/json" + "{"),
        (415, BODYLESS % "text/plain"),
        (415, BODYLESS % "text/plain" + "x" * 99),
        (413, BODYLESS.replace("99", "9" * 9) % "application/json"),
        (200, HALF.replace("X-Never: ", "\r\n") + BODYLESS % "application/json" + "{"),
    ],
    ids=["nothing", "half a header", "half a body", "415", "rest", "413", "pipelined"],
)
def test_54_a_request_that_does_not_come_in_time_ends_the_connection(
    hasty: Client, connect: Connect, status: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = connect(hasty)
    wire.send(text.replace("{host}", wire.host))
    assert wire.status() == status
    assert wire.is_closed()
    monkeypatch.undo()  # On a busy machine a good client may be slow too.
    assert still_serves(hasty)


def test_54_a_header_that_comes_by_the_byte(hasty: Client, connect: Connect) -> None:
    """A further byte does not restart the clock."""
    wire = connect(hasty)
    wire.socket.settimeout(0.02)
    for _ in range(1000):
        try:
            wire.send("G")
            assert wire.socket.recv(12) == b""
        except TimeoutError:
            continue
        except ConnectionError:
            pass
        return
    pytest.fail("it was never cut off")


@pytest.mark.parametrize("headers", [(), ("Connection: close",)], ids=["kept", "closing"])
def test_54_a_client_that_does_not_read(
    hasty: Client,
    connect: Connect,
    jobs: JobQueue,
    wait_until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    headers: tuple[str, ...],
) -> None:
    lost: list[Any] = []
    connection_lost = connections.Connection.connection_lost

    def noted(connection: connections.Connection, exc: Exception | None) -> None:
        lost.append(connection.client)
        connection_lost(connection, exc)

    monkeypatch.setattr(connections.Connection, "connection_lost", noted)
    if headers:  # What is left then may be less than would pause the writing.
        monkeypatch.setattr(connections.Connection, "pause_writing", lambda _: None)
    text = "x" * 500_000
    jobs.enqueue_many([jobs.registry["echo"].options(tags=["ok"]).call(text) for _ in range(60)])
    wire = connect(hasty)
    wire.request("GET", "/api/jobs?limit=60", *headers)
    assert still_serves(hasty)
    wait_until(lambda: wire.socket.getsockname() in lost)


def test_54_beyond_the_limit_of_connections_requests_are_refused(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were there before are served, the oldest first."""
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 3)
    client = serve()
    wires = [connect(client) for _ in range(4)]
    for wire, status in zip(wires, (200, 200, 200, 503)):
        wire.request("GET", "/healthz")
        head, _ = wire.answer()
        assert head.split()[1] == str(status)
        assert "nosniff" in head and "default-src 'none'" in head
