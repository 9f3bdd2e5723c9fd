"""What our sessions on PostgreSQL have set, whatever their role or database has; and their end.

Nothing is set that a pooler in transaction mode would hand on to its next client: there the few
settings that reading depends on are those of each transaction. The search path is left alone.
"""

import codecs
import select
import time
from typing import Any

from sqlalchemy import Connection, Engine, PoolProxiedConnection, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
}
"""The server reports them by itself, so that a session which has them costs nothing."""

ELSEWHERE = 1.0
"""Seconds for which a session that may only read is kept: the URL may lead to another server."""

_ENDED = (  # SQLSTATEs after which nothing more can be done on the connection.
    "08",  # of the connection itself
    "25006",  # read-only: a standby, or a primary that was set aside
    "25P03",  # idle_in_transaction_session_timeout
    "25P04",  # transaction_timeout
    "57P01",  # the server shuts down
    "57P02",  # it has crashed
    "57P03",  # it does not take connections yet
    "57P04",  # the database was dropped
    "57P05",  # idle_session_timeout
)
_SET = (
    "SELECT "
    + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in SETTINGS.items())
    + " WHERE pg_backend_pid() = %s"
)
_SET_LOCAL = "SET LOCAL DateStyle = 'ISO'"
_PER_TRANSACTION = "jobqueue_per_transaction"
_MADE = "jobqueue_made"
_DIRECT = "jobqueue_direct"


class ArrayText(str):
    """An array as PostgreSQL reads it from text, where a backslash is written as two."""

    __slots__ = ()


def prepare(engine: Engine) -> None:
    """Give every session of an engine our settings, and notice when one is of no more use.

    The dialect is told, and no listener: one event of an engine's costs each statement a look at
    all of them.
    """
    event.listen(engine, "connect", _connected)
    dialect: Any = engine.dialect
    is_disconnect = dialect.is_disconnect

    def is_lost_or_over(error: Exception, connection: Any, cursor: Any) -> bool:
        # All connections of the pool lead to that server.
        over = is_over(getattr(error, "sqlstate", None))
        return over or bool(is_disconnect(error, connection, cursor))

    dialect.is_disconnect = is_lost_or_over


def is_direct(connection: PoolProxiedConnection) -> bool:
    """True if no pooler stands in between, which may give each transaction another session.

    A pooler gives out process ids of its own.
    """
    if _DIRECT not in connection.info:
        driver: Any = connection.driver_connection
        [there] = driver.execute("SELECT pg_backend_pid()").fetchone()
        connection.info[_DIRECT] = there == driver.pgconn.backend_pid
    direct: bool = connection.info[_DIRECT]
    return direct


def sets_per_transaction(connection: PoolProxiedConnection) -> bool:
    """True if a statement outside of a transaction would be answered in a form we do not read."""
    return _PER_TRANSACTION in connection.info


def is_read_only(driver: Any) -> bool:
    """True if the server has told the session that it takes no writes; costs no round trip."""
    report = driver.pgconn.parameter_status
    return b"on" in (report(b"in_hot_standby"), report(b"default_transaction_read_only"))


def require_writable(driver: Any) -> None:
    """Raise DisconnectionError if the server of a session has been set aside."""
    if is_read_only(driver):
        raise DisconnectionError("the server has become read-only")


def is_over(code: str | None) -> bool:
    """True if an error of this SQLSTATE condemns the connection and not the statement."""
    return code is not None and code.startswith(_ENDED)


def _connected(driver: Any, record: Any) -> None:
    record.info[_MADE] = time.monotonic()
    _escape(driver)
    report = driver.info.parameter_status
    wrong = [name for name, value in SETTINGS.items() if not _is(report(name), value)]
    if not wrong:
        return
    try:
        driver.autocommit = True
        direct = driver.execute(_SET, [driver.pgconn.backend_pid]).fetchone() is not None
        driver.autocommit = False
    except BaseException:
        driver.close()  # The pool does not know it yet.
        raise
    record.info[_DIRECT] = direct
    if not direct and "DateStyle" in wrong:  # Instants of any zone are read as such.
        record.info[_PER_TRANSACTION] = True


def _is(reported: str | None, wanted: str) -> bool:
    """True of `ISO, DMY` too: what we write has the year first."""
    return reported is not None and reported.partition(",")[0] == wanted


def is_lost(record: ConnectionPoolEntry) -> bool:
    """True if an idle connection is of no more use; costs no round trip and no statement."""
    driver: Any = record.dbapi_connection
    if driver is None:
        return False  # It was dropped, and is made anew.
    # A server that ends a session says so, also while nobody asks.
    if driver.closed or _has_news(driver.pgconn.socket):
        return True
    # Reading goes on where a session cannot write, from what may be of yesterday.
    return is_read_only(driver) and time.monotonic() - record.info[_MADE] > ELSEWHERE


def begun(connection: Connection) -> None:
    """A transaction has begun: set what a pooler in between does not keep for longer."""
    if _PER_TRANSACTION in connection.info:
        connection.exec_driver_sql(_SET_LOCAL)


def _has_news(socket: int) -> bool:
    """True if a connection that was asked nothing has something to read: its end, nearly always."""
    if not hasattr(select, "poll"):  # pragma: no cover - Windows, where any number may be selected.
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def _escape(driver: Any) -> None:
    """Where the database cannot hold all text, write what it cannot as an escape of JSON.

    In JSON that is the same text; in what is only read by people it says what was there.
    """
    encoding = driver.info.parameter_status("server_encoding")
    if encoding in ("UTF8", "SQL_ASCII", None):
        return

    from psycopg import DataError
    from psycopg.adapt import Dumper

    class EscapingDumper(Dumper):
        handler = _IN_TEXT

        def dump(self, obj: str) -> bytes:
            if "\x00" in obj:
                raise DataError("PostgreSQL text cannot contain NUL (0x00)")
            return obj.encode(codec, self.handler).decode(codec).encode()

    class EscapingArrayDumper(EscapingDumper):
        handler = _IN_ARRAY

    codec = _codec(encoding)
    driver.adapters.register_dumper(str, EscapingDumper)
    driver.adapters.register_dumper(ArrayText, EscapingArrayDumper)


def _codec(encoding: str) -> str:
    """Python's name of a server's encoding; plain ASCII where it has none."""
    name = encoding.replace("WIN", "cp").replace("KOI8", "koi8_").replace("LATIN", "latin_")
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "ascii"


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[at : at + 2].hex() for at in range(0, len(units), 2))
    return "".join(f"\\u{pair}" for pair in pairs), error.end


def _escaped_in_array(error: UnicodeError) -> tuple[str, int]:
    text, end = _escaped(error)
    return text.replace("\\", "\\\\"), end


_IN_TEXT, _IN_ARRAY = "jobqueue_text", "jobqueue_array"
codecs.register_error(_IN_TEXT, _escaped)
codecs.register_error(_IN_ARRAY, _escaped_in_array)
