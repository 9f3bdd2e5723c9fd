"""The access log: a line for each request, with nothing that was sent but its method and path."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobqueue.loggers import get_logger
from jobqueue.printable_text import escape_controls

log = get_logger("jobqueue.web.access")

PATH_MAX = 200


async def answer_logged(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request and log it, at level INFO to `jobqueue.web.access`.

    Without the query, where a token may stand by mistake. The status is None if the client went
    before there was one.
    """
    status: int | None = None
    size, began = 0, time.monotonic()

    async def counted(message: Message) -> None:
        nonlocal status, size
        status = message.get("status", status)
        size += len(message.get("body", b""))
        await send(message)

    try:
        await app(scope, receive, counted)
    finally:
        client = scope.get("client")
        fields = {
            "method": scope["method"],
            "path": escape_controls(scope["path"])[:PATH_MAX],
            "status": status,
            "bytes": size,
            "duration": round(time.monotonic() - began, 6),
            # Maybe from a proxy's header.
            "client": escape_controls(client[0]) if client else None,
        }
        log.info(
            "%(client)s %(method)s %(path)s: %(status)s, %(bytes)d bytes in %(duration).3f s",
            fields,
            extra={"event": "request", **fields},
        )
