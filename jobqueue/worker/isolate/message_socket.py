"""The worker's end of the socket to a child. It never blocks on half a message.

The other end is a `multiprocessing.connection.Connection`: a message is its length in four bytes,
and JSON.
"""

import contextlib
import json
import math
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any

CHUNK = 1 << 18  # bytes per read
LAST_CHUNKS_MAX = 64  # reads of what a dead child has left in the socket
MESSAGE_MAX = 1 << 28
"""Bytes. Four bytes of text in place of a length announce more than that."""

_LENGTH = struct.Struct("!i")


class MessageSocket:
    """Length-prefixed JSON over a socket. Used by one thread."""

    def __init__(self, end: socket.socket, wake_reader: socket.socket) -> None:
        end.setblocking(False)
        self._end, self._wake_reader = end, wake_reader
        self._received, self._unsent = bytearray(), bytearray()
        self._poll = select.poll()
        self._poll.register(wake_reader, select.POLLIN)

    def send(self, **message: Any) -> None:
        """Send a message; what does not fit into the buffer is sent by `wait`."""
        text = json.dumps(message).encode()
        self._unsent += _LENGTH.pack(len(text)) + text
        self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._end.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # The child is gone: the next read raises EOFError.
            self._unsent.clear()

    def wait(self, seconds: float) -> bool:
        """Wait for data, or for a byte on the wake-up socket; True if data came.

        Raises EOFError or OSError when nothing will come any more.
        """
        self._poll.register(self._end, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        ready = dict(self._poll.poll(math.ceil(max(0.0, seconds) * 1000)))
        if ready.get(self._wake_reader.fileno()):
            self._wake_reader.recv(4096)
        events = ready.get(self._end.fileno(), 0)
        if events & select.POLLOUT:
            self._flush()
        return bool(events & ~select.POLLOUT) and self._read()

    def _read(self) -> bool:
        try:
            chunk = self._end.recv(CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            raise EOFError
        self._received += chunk
        return True

    def drain(self) -> None:
        """Read what a dead child has left in the socket."""
        with contextlib.suppress(EOFError, OSError):
            for _ in range(LAST_CHUNKS_MAX):  # A process that it started may go on writing.
                if not self._read():
                    break

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the complete messages. Raises ValueError or TypeError for others."""
        received, start = self._received, _LENGTH.size
        while len(received) >= start:
            (length,) = _LENGTH.unpack_from(received)
            if not 0 <= length <= MESSAGE_MAX:
                raise ValueError(f"a message of {length} bytes")
            if len(received) < start + length:
                return
            message = json.loads(received[start : start + length])
            del received[: start + length]
            if not isinstance(message, dict):
                raise TypeError("no object")
            yield message

    def close(self) -> None:
        """Close the socket: the child reads the end of the stream."""
        self._end.close()
