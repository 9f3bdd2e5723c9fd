"""uvicorn's HTTP/1.1 protocol, with the limits that it lacks: for slow clients, and for many."""

import asyncio
import socket

import h11
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.h11_impl import H11Protocol

from jobqueue.web.app import API_HEADERS

CONNECTIONS_MAX = 500
"""Requests on connections that come beyond these are answered 503."""
REQUEST_TIMEOUT = 30.0
"""Seconds for a whole request, from the start of the connection or the end of the answer before;
and seconds for which a client may stop reading its answer. Then the connection is closed."""

PLAIN_TEXT = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]


async def _unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 503, with the headers of every answer."""

    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *API_HEADERS]
        await send(message)

    await service_unavailable(scope, receive, secured)  # type: ignore[arg-type]


class Connection(H11Protocol):
    """One client's connection."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock; refuse requests if there are too many connections."""
        super().connection_made(transport)
        # Not by limit_concurrency of uvicorn: it refuses the next request, also on an old one.
        if len(self.connections) > CONNECTIONS_MAX:
            self.app = _unavailable
        # asyncio does this by itself only for sockets that name their protocol. Without it the body
        # of an answer waits for the header's acknowledgement: 44 ms, measured, instead of 3.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._update_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._cancel_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop the clock if the request is complete. More bytes alone do not restart it."""
        super().data_received(data)
        self._update_deadline()

    def on_response_complete(self) -> None:
        """Start the clock for the next request."""
        super().on_response_complete()
        self._update_deadline()

    def pause_writing(self) -> None:
        """Start the clock: the client does not read."""
        super().pause_writing()
        self._update_deadline()

    def resume_writing(self) -> None:
        """Stop the clock: the client reads on."""
        super().resume_writing()
        self._update_deadline()

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not a request, before the app sees them: with the usual headers."""
        headers = [*PLAIN_TEXT, *API_HEADERS]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=msg.encode()),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _update_deadline(self) -> None:
        # Closing: the rest of the last answer waits for the client, the writing paused or not.
        waiting = self.flow.write_paused or self.transport.is_closing()
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY) and not waiting:
            self._cancel_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_TIMEOUT, self.transport.abort)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
