"""Connections: uvicorn's protocol, with limits for clients that are slow, broken, or too many."""

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from jobqueue.web.app import SECURITY_HEADERS
from jobqueue.web.responses import JSON, described, to_bytes
from jobqueue.web.security import HEADER_BYTES_MAX, URL_MAX


@dataclass(frozen=True)
class Limits:
    """What one client may take. Times are seconds."""

    connections: int = 500
    """Beyond it, the connection that has been longest without a request makes room."""
    header: float = 10.0
    """From the first byte, or the connection's begin, to the end of the header."""
    body: float = 30.0
    """From the end of the header to that of the body."""
    idle: float = 15.0
    """Between two requests."""
    write: float = 30.0
    """For which a client may not read what it was sent."""
    header_bytes: int = URL_MAX + HEADER_BYTES_MAX
    """Of a header that is not complete yet."""


class Connection(H11Protocol):
    """One client's connection."""

    limits: ClassVar[Limits] = Limits()

    _since = 0.0
    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None
    _is_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there: its request has to come in time."""
        super().connection_made(transport)
        # asyncio does this by itself only for sockets that name their protocol. Without it the body
        # of an answer waits for the header's acknowledgement: 44 ms, measured, instead of 3.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._since = time.monotonic()
        self._expect(self.limits.header)
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._read_in_time()
        self._written_in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A part of a request has come."""
        if self.conn.their_state is h11.IDLE and self._reading is None:
            self._expect(self.limits.header)
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """A request was answered; the connection may be used for the next."""
        super().on_response_complete()
        self._since = time.monotonic()
        self._look()

    def pause_writing(self) -> None:
        """The client does not read what it asked for."""
        super().pause_writing()
        self._writing = self.loop.call_later(self.limits.write, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads on."""
        self._written_in_time()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours is JSON.
        """Refuse what is no HTTP, or more header than is taken."""
        self._read_in_time()
        self._refuse(400, "this is no valid HTTP request, or its header is too large")

    def _look(self) -> None:
        """Set the clock for what has to come next."""
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            if not self._is_body:
                self._expect(self.limits.body)
        elif state is not h11.IDLE or self._is_body:
            self._read_in_time()
        if state is h11.IDLE and self._reading is self.timeout_keep_alive_task is None:
            self._expect(self.limits.idle)  # The rest of a body that was answered already.
        self._is_body = state is h11.SEND_BODY

    def _expect(self, seconds: float) -> None:
        self._read_in_time()
        self._reading = self.loop.call_later(seconds, self._too_slow)

    def _read_in_time(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _written_in_time(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _too_slow(self) -> None:
        self._reading = None
        self._refuse(408, "the request did not come in time")

    def _make_room(self) -> None:
        others: list[Any] = [
            other
            for other in self.connections
            if isinstance(other, Connection) and other is not self and other.is_waiting
        ]
        if others:
            min(others, key=lambda other: other._since).transport.abort()  # noqa: SLF001
        else:
            self._refuse(503, "too many connections")

    @property
    def is_waiting(self) -> bool:
        """True while there is no whole request, so that nothing is lost without it."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _refuse(self, status: int, message: str) -> None:
        """Answer without a request, and close."""
        body = to_bytes({"error": described(message)}) + b"\n"
        headers = [
            (b"content-type", JSON.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *SECURITY_HEADERS,
        ]
        events = (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        try:
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass  # There is an answer already.
        self.transport.close()


def protocol(limits: Limits) -> type[Connection]:
    """The protocol with these limits; uvicorn makes one for each connection."""
    return type("Connection", (Connection,), {"limits": limits})
