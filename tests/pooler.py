"""A pooler in transaction mode, as far as its clients can tell: what each test needs of PgBouncer.

It refuses start-up parameters that it does not track, gives out process ids of its own, and hands no notification on.
"""

import contextlib
import socket
import struct
import threading

from sqlalchemy import make_url

TRACKED = {
    "user",
    "database",
    "client_encoding",
    "datestyle",
    "timezone",
    "standard_conforming_strings",
    "application_name",
}
_STARTUP = 3 << 16
_PID = 0x7FFF0001  # larger than any of the system's


class Pooler:
    """Stands before a server. Every client has a session of its own; `session`: and hears of notifications."""

    def __init__(self, server: str, *, session: bool = False) -> None:
        self._session = session
        self._server = make_url(server)
        self.refused: set[str] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listening]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The URL of the same database by way of the pooler."""
        port = self._listening.getsockname()[1]
        query = {"sslmode": "disable", "gssencmode": "disable"}
        url = self._server.set(host="127.0.0.1", port=port, query=query)
        return url.render_as_string(hide_password=False)

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self) -> "Pooler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                # As PgBouncer: else the second message of each answer waits 40 ms for an acknowledgement.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            startup = _exactly(client, struct.unpack("!I", _exactly(client, 4))[0] - 4)
            (code,) = struct.unpack("!I", startup[:4])
            server = self._connect()
            if code != _STARTUP:  # A client that cancels a statement.
                server.close()
                client.close()
                return
            names = set(startup[4:].decode().split("\0")[0:-2:2])
            if unknown := names - TRACKED:
                self.refused |= unknown
                _refuse(client, f"unsupported startup parameter: {min(unknown)}")
                return
            server.sendall(struct.pack("!I", len(startup) + 4) + startup)
            threading.Thread(target=_copy, args=(client, server), daemon=True).start()
            _copy_messages(server, client, deaf=not self._session)

    def _connect(self) -> socket.socket:
        port = self._server.port or 5432
        if self._server.host:
            server = socket.create_connection((self._server.host, port))
        else:
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{self._server.query['host']}/.s.PGSQL.{port}")
        self._sockets.append(server)
        return server


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _hang_up(target)


def _copy_messages(server: socket.socket, client: socket.socket, *, deaf: bool) -> None:
    try:
        while True:
            kind, length = struct.unpack("!cI", _exactly(server, 5))
            body = _exactly(server, length - 4)
            if kind == b"K":  # BackendKeyData
                body = struct.pack("!I", _PID) + body[4:]
            if kind != b"A" or not deaf:  # NotificationResponse
                client.sendall(struct.pack("!cI", kind, length) + body)
    finally:
        _hang_up(client)


def _hang_up(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def _exactly(source: socket.socket, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = source.recv(count)
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _refuse(client: socket.socket, message: str) -> None:
    body = f"SFATAL\0C08P01\0M{message}\0\0".encode()
    client.sendall(b"E" + struct.pack("!I", len(body) + 4) + body)
    client.close()
