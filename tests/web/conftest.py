"""Shared by the tests of the HTTP API: an app with tasks, real servers, and raw connections."""

import asyncio
import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn.server

from jobqueue import JobQueue, Snooze, current_job
from jobqueue.web import Server, create_app

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="session", autouse=True)
def quick_stops() -> Iterator[None]:
    """uvicorn looks every 0.1 s whether it has to stop, and waits 0.1 s more for what is open: here a fifth of that."""
    hurried: Any = ModuleType("asyncio")
    vars(hurried).update(vars(asyncio), sleep=lambda seconds: asyncio.sleep(seconds / 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.server, "asyncio", hurried)
        yield


@pytest.fixture
def jobs(url: str) -> Iterator[JobQueue]:
    """A queue with some tasks."""
    with JobQueue(url) as jobs:
        add_tasks(jobs)
        yield jobs


def add_tasks(jobs: JobQueue) -> None:
    @jobs.task
    def add(x: int, y: int) -> int:
        return x + y

    @jobs.task
    def echo(value: object) -> object:
        return value

    @jobs.task(max_attempts=1)
    def fail(message: str = "it broke") -> None:
        raise ValueError(message)

    @jobs.task
    def overdo() -> str:
        for wrong in (1.5, -1, float("nan"), "half"):
            try:
                current_job().progress(wrong)  # type: ignore[arg-type]
            except TypeError:
                continue
            return f"{wrong} was taken"
        return "went on"

    @jobs.task
    def put_off() -> None:
        raise Snooze(0)


class Client(httpx.Client):
    """A client of one front, which waits a minute for an answer, and reads no certificates: there is no TLS."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**{"timeout": 60, "verify": False, **how})

    def enqueue(self, *args: Any, task: str = "add", **more: Any) -> httpx.Response:
        return self.post("/api/jobs", json={"task": task, "args": list(args), **more})

    def id(self, *args: Any, **more: Any) -> int:
        response = self.enqueue(*args, **more)
        assert response.status_code == 202, response.text
        return int(response.json()["id"])

    def refused(self, status: int, method: str, path: str, **how: Any) -> dict[str, Any]:
        """The error of an answer that must have this status."""
        response = self.request(method, path, **how)
        assert response.status_code == status, response.text
        error = response.json()["error"]
        assert set(error) == {"message", "field", "value"}
        return error


Serve = Callable[..., Client]


@pytest.fixture
def serve(jobs: JobQueue) -> Iterator[Serve]:
    """Starts a real server on loopback, with the app's options, and gives a client."""
    with ExitStack() as stack:

        def start(grace: float = 1, **options: Any) -> Client:
            server = Server(create_app(jobs, **options), port=0, grace=grace)
            stack.enter_context(server)
            return stack.enter_context(Client(base_url=server.url))

        yield start


@pytest.fixture
def client(serve: Serve) -> Client:
    """A client of a server with the defaults."""
    return serve()


class RawConnection:
    """A connection that sends bytes as they are."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self.host = f"{parts.hostname}:{parts.port}"
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=30)
        self._rest = b""

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def status(self) -> int:
        """The status of the next answer; 0 if the connection was closed without one."""
        head, _ = self.answer()
        return int(head.split()[1]) if head else 0

    def answer(self) -> tuple[str, bytes]:
        """The header and the body of the next answer; both are empty if there is none."""
        data, self._rest = self._rest, b""
        try:
            while b"\r\n\r\n" not in data:
                part = self.socket.recv(65536)
                if not part:
                    return "", b""
                data += part
            head, _, body = data.partition(b"\r\n\r\n")
            match = re.search(rb"content-length: (\d+)", head)
            length = int(match[1]) if match else len(body)
            while len(body) < length:
                body += self.socket.recv(65536)
        except ConnectionResetError:
            return "", b""
        self._rest = body[length:]  # Of the next answer.
        return head.decode("latin-1"), body[:length]

    def is_closed(self) -> bool:
        """Wait until the other side has closed."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def request(self, method: str, path: str, *headers: str, body: str = "") -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", *headers, "", body]
        self.send("\r\n".join(lines))


def enqueue_text(host: str, x: int = 2) -> str:
    """A whole request that enqueues a job."""
    body = json.dumps({"task": "add", "args": [x, 3]})
    return (
        f"POST /api/jobs HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )


Connect = Callable[[Client], RawConnection]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Opens a connection to a client's server."""
    open_: list[RawConnection] = []

    def connect(client: Client) -> RawConnection:
        open_.append(RawConnection(str(client.base_url)))
        return open_[-1]

    yield connect
    for wire in open_:
        wire.socket.close()


@contextmanager
def working(jobs: JobQueue, **settings: Any) -> Iterator[None]:
    """A worker is there meanwhile."""
    with jobs.worker(poll=0.05, **settings):
        yield
