"""Runs uvicorn in a thread, beside a worker if there is one, until a signal."""

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

import uvicorn

from jobqueue import options
from jobqueue.errors import InvalidOption, invalid
from jobqueue.loggers import get_logger
from jobqueue.os_signals import LAST_SECOND, StopSignals, leave
from jobqueue.web.app import WebApp
from jobqueue.web.connections import Connection
from jobqueue.web.security import HEADER_BYTES_MAX, LOOPBACK_NAMES, URL_MAX
from jobqueue.worker.worker import Worker

log = get_logger("jobqueue.web")

STOP_TIMEOUT = 5.0
"""Seconds that open requests are given when the server stops."""
KEEP_ALIVE_TIMEOUT = 15
"""Seconds between two requests on a connection."""


class BindAddress:
    """A checked address to listen on. Raises InvalidOption."""

    def __init__(self, host: str, port: int) -> None:
        options.port(port)
        try:
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise invalid(
                "host", f"{host[:60]!r} is not an address of this machine", host
            ) from None
        # IPv4 before IPv6 if the name has both.
        self._family: int
        self._address: tuple[Any, ...]
        self._family, *_, self._address = min(found)
        self.address = str(self._address[0])

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.address.partition("%")[0]).is_loopback
        except ValueError:
            return False

    @property
    def in_url(self) -> str:
        """The address as in a URL."""
        return f"[{self.address}]" if ":" in self.address else self.address

    def names(self, allowed: Iterable[str]) -> list[str] | None:
        """Return the names to serve, with those allowed; None: any, if it is not a loopback one."""
        own = (*LOOPBACK_NAMES, self.in_url) if self.is_loopback else ()
        return [*allowed, *own] or None

    def require(self, *, token: bool) -> None:
        """Raise InvalidOption if other machines can reach the address and there is no token."""
        if not (self.is_loopback or token):
            raise InvalidOption(
                f"host: {self.address} can be reached from elsewhere, so a token is needed: "
                "set $JOBQUEUE_TOKEN to a long random text",
                field="token",
            )

    def bind(self) -> socket.socket:
        """Return a listening socket. Raises OSError if the address is in use or not allowed."""
        try:
            return socket.create_server(self._address[:2], family=self._family, backlog=1024)
        except OSError as error:
            at = f"{self.address}:{self._address[1]}"
            reason = f"cannot listen here: {error.strerror or error}"
            raise OSError(error.errno, reason, at) from None


class _Uvicorn(uvicorn.Server):
    """Releases waiting requests before it stops, and closes all connections at its end."""

    def __init__(self, config: uvicorn.Config, app: WebApp) -> None:
        super().__init__(config)
        self._app = app
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.release()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class Server:
    """Serves an app in a thread: a context manager, or `start()` and `stop()`.

    `grace`: seconds that open requests are given at the stop. Raises InvalidOption.
    """

    def __init__(
        self, app: WebApp, host: str = "127.0.0.1", port: int = 8081, *, grace: float = STOP_TIMEOUT
    ) -> None:
        self._listener = BindAddress(host, port)
        self._listener.require(token=app.has_token)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL,  # Its records of requests may hold secrets.
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_TIMEOUT,
            timeout_graceful_shutdown=grace,  # type: ignore[arg-type]
            h11_max_incomplete_event_size=URL_MAX + HEADER_BYTES_MAX,
        )
        self._uvicorn = _Uvicorn(config, app)
        self._thread: threading.Thread | None = None
        self._ended: Callable[[], None] = lambda: None
        self.url = ""
        """`http://host:port`, once it is bound."""
        self._socket: socket.socket | None = None

    def bind(self) -> socket.socket:
        """Bind the address and return the socket. From now on connections queue. Raises OSError."""
        if self._socket is None:
            self._socket = self._listener.bind()
            self.url = f"http://{self._listener.in_url}:{self._socket.getsockname()[1]}"
        return self._socket

    def start(self, ended: Callable[[], None] | None = None) -> None:
        """Start to serve; `ended()` is called when it stops, however it does. Raises OSError."""
        self._ended = ended or self._ended
        self._thread = threading.Thread(target=self._run, args=(self.bind(),), name="jobqueue-web")
        self._thread.start()
        self._uvicorn.ready.wait()

    def _run(self, listening: socket.socket) -> None:
        try:
            self._uvicorn.run([listening])
        finally:
            self._uvicorn.ready.set()
            listening.close()
            self._ended()

    def request_stop(self) -> None:
        """Accept no more connections; open requests are answered. Does not wait."""
        self._uvicorn.should_exit = True

    def abort(self) -> None:
        """Close open requests without an answer."""
        self._uvicorn.force_exit = self._uvicorn.should_exit = True

    def stop(self) -> None:
        """Accept no more connections, answer open requests, and wait for the end."""
        self.request_stop()
        if self._thread is not None:
            self._thread.join()
        elif self._socket is not None:
            self._socket.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def serve(
    app: WebApp,
    host: str = "127.0.0.1",
    port: int = 8081,
    *,
    worker: Worker | None = None,
    grace: float = STOP_TIMEOUT,
    listening: Callable[[str], None] | None = None,
) -> int:
    """Serve, with a worker if one is given, until SIGTERM or SIGINT; returns the exit code.

    Then no more connections are accepted, open requests are answered, and running jobs end: 0. A
    second signal, or a timeout, ends all at once: 1. To be called in the main thread.
    `listening(url)` is called when the server accepts connections. Raises OSError.
    """
    server = Server(app, host, port, grace=grace)
    server.bind()  # First, so that no job runs if the address is in use.
    stopping = threading.Event()

    def stop_at_once() -> None:
        server.abort()
        if worker is not None:
            worker.abort()
        leave(1, after=LAST_SECOND)

    try:
        with StopSignals(stopping.set, stop_at_once) as stop:
            return _serve(server, worker, stop, stopping, listening)
    finally:
        server.stop()


def _serve(
    server: Server,
    worker: Worker | None,
    stop: StopSignals,
    stopping: threading.Event,
    listening: Callable[[str], None] | None,
) -> int:
    if worker is not None:
        worker.start()
    try:
        server.start(stopping.set)
        log.info("listening on %s", server.url)
        if listening is not None:
            listening(server.url)
        if worker is not None:
            threading.Thread(target=_follow, args=(worker, stopping), daemon=True).start()
        stopping.wait()
        if stop.first:
            log.info("%s: stopping; a second signal stops at once", stop.first)
    finally:
        server.stop()
        in_order = worker is None or worker.stop()
    failed = worker is not None and worker.failure is not None
    return 1 if failed or not in_order or stop.level != 1 else 0


def _follow(worker: Worker, stopping: threading.Event) -> None:
    worker.wait()
    stopping.set()
