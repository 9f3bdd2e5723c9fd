"""A worker's probes over HTTP, on 127.0.0.1 by default.

GET and HEAD only; one request for each connection, on a thread of its own.
"""

import ipaddress
import json
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from jobqueue.worker.log_context import log
from jobqueue.worker.observe.health import Health, WorkerHealth

LOOPBACK = "127.0.0.1"
UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE
NAMES = frozenset({"127.0.0.1", "localhost", "[::1]", ""})
"""Names in the Host header. Others are refused on loopback: DNS rebinding in browsers."""

Page = Callable[[], tuple[int, str, str]]
"""Returns status, content type and text."""


class Probes:
    """Serves pages by path on one port, which it binds at once. Raises OSError if it is in use."""

    def __init__(self, port: int, pages: Mapping[str, Page], host: str = LOOPBACK) -> None:
        self._server = _Server(host, port, pages)
        self.host = f"[{host}]" if ":" in host else host
        self._thread: threading.Thread | None = None
        self.port: int = self._server.server_address[1]
        self.paths = tuple(pages)

    def serve(self) -> None:
        """Start to answer, in a thread."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="jobqueue-probes", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        if self._thread is not None:
            self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    # Not http.server.ThreadingHTTPServer: it asks the resolver for the address's name.
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        self.pages = pages
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)
        self.is_loopback = ipaddress.ip_address(str(self.server_address[0])).is_loopback

    def handle_error(self, *_: Any) -> None:
        """Log an error of ours; an OSError says that the client has gone."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error("cannot answer a probe: %r", error, exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 5.0  # seconds without a byte, after which a client is cut off
    server_version = "jobqueue"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with a page."""
        page = self.server.pages.get(self.path.partition("?")[0])
        name = re.sub(r":\d*$", "", self.headers.get("Host", "")).lower()
        if self.server.is_loopback and name not in NAMES:
            status, kind, text = int(HTTPStatus.FORBIDDEN), "text/plain", "for localhost only\n"
        elif page is None:
            status, kind, text = int(HTTPStatus.NOT_FOUND), "text/plain", "not found\n"
        else:
            status, kind, text = page()
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name.
        """Log nothing: probes arrive every few seconds."""


def health_pages(health_of: Callable[[], WorkerHealth]) -> dict[str, Page]:
    """Return the pages `/healthz`, whether it is alive, and `/readyz`, whether it can claim."""

    def page(good: Callable[[Health], bool]) -> Page:
        def answer() -> tuple[int, str, str]:
            of_worker = health_of()
            health = of_worker.check()
            is_good = good(health)
            reason = None if is_good else of_worker.why_not(health)
            text = json.dumps({"ok": is_good, **health._asdict(), "reason": reason}) + "\n"
            return HTTPStatus.OK if is_good else UNAVAILABLE, "application/json", text

        return answer

    return {"/healthz": page(lambda health: health.alive), "/readyz": page(all)}
