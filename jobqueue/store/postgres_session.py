"""PostgreSQL sessions: settings that override those of the role and database, and lost sessions.

A pooler in transaction mode would pass session settings on to its next client: behind one, the few
settings that reading depends on are set per transaction. The search path is never changed.
"""

import codecs
import select
import threading
import time
from typing import Any

from sqlalchemy import Connection, Engine, PoolProxiedConnection, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from jobqueue.errors import ConfigurationError

OLDEST = 140_000
"""The first server that reports `in_hot_standby`, by which `is_read_only` knows a standby. From 13
on it has gen_random_uuid(), which the migrations use."""

SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
}
"""The server reports these at connect, so that a session that has them needs no round trip."""

READ_ONLY_SECONDS = 1.0
"""Seconds for which a read-only session is kept: a new one may reach another server."""

_ENDED = (  # SQLSTATEs after which the connection cannot be used.
    "08",  # connection exception
    "25006",  # read-only: a standby, or a primary that was demoted
    "25P03",  # idle_in_transaction_session_timeout
    "25P04",  # transaction_timeout
    "57P01",  # the server shuts down
    "57P02",  # it has crashed
    "57P03",  # it does not take connections yet
    "57P04",  # the database was dropped
    "57P05",  # idle_session_timeout
)
# A generic plan, or one made before the table grew, was measured 8 to 66 times slower.
_CUSTOM_PLANS = "set_config('plan_cache_mode', 'force_custom_plan', false)"
_IF_DIRECT = " WHERE pg_backend_pid() = %s"
_SET = (
    f"SELECT {_CUSTOM_PLANS}, "
    + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in SETTINGS.items())
    + _IF_DIRECT
)
_SET_CUSTOM_PLANS = f"SELECT {_CUSTOM_PLANS}{_IF_DIRECT}"
_SET_LOCAL = "SET LOCAL DateStyle = 'ISO'"
_PER_TRANSACTION = "jobqueue_per_transaction"
_MADE = "jobqueue_made"
_DIRECT = "jobqueue_direct"


class ArrayText(str):
    """An array in PostgreSQL's text form, in which a backslash is doubled."""

    __slots__ = ()


def prepare(engine: Engine) -> None:
    """Give every session of an engine our settings, and detect lost sessions.

    Errors are checked in the dialect, not in a `handle_error` listener: an engine with one event
    listener checks for every event at each statement.
    """
    event.listen(engine, "connect", _connected)
    dialect: Any = engine.dialect
    is_disconnect = dialect.is_disconnect

    def is_lost_or_over(error: Exception, connection: Any, cursor: Any) -> bool:
        # All connections of the pool lead to the same server.
        over = is_over(getattr(error, "sqlstate", None))
        return over or bool(is_disconnect(error, connection, cursor))

    dialect.is_disconnect = is_lost_or_over


def is_direct(connection: PoolProxiedConnection | ConnectionPoolEntry) -> bool:
    """Return whether there is no pooler in between, which may use a session per transaction.

    A pooler reports its own process ids, which differ from `pg_backend_pid()`. In a direct session
    prepared statements are parsed once, and planned at each execution.
    """
    if _DIRECT not in connection.info:
        driver: Any = connection.driver_connection
        own = driver.execute(_SET_CUSTOM_PLANS, [driver.pgconn.backend_pid]).fetchone()
        connection.info[_DIRECT] = own is not None
    direct: bool = connection.info[_DIRECT]
    return direct


def sets_per_transaction(connection: ConnectionPoolEntry) -> bool:
    """Return whether results are readable only inside a transaction with our DateStyle."""
    return _PER_TRANSACTION in connection.info


def is_read_only(driver: Any) -> bool:
    """Return whether the server has reported that it takes no writes; costs no round trip."""
    report = driver.pgconn.parameter_status
    return b"on" in (report(b"in_hot_standby"), report(b"default_transaction_read_only"))


def require_writable(driver: Any) -> None:
    """Raise DisconnectionError if the server of a session has become read-only."""
    if is_read_only(driver):
        raise DisconnectionError("the server has become read-only")


def is_over(code: str | None) -> bool:
    """Return whether an error of this SQLSTATE ends the connection, not only the statement."""
    return code is not None and code.startswith(_ENDED)


def _connected(driver: Any, record: Any) -> None:
    record.info[_MADE] = time.monotonic()
    _require_version(driver)
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
        driver.close()  # The pool does not have the connection yet.
        raise
    record.info[_DIRECT] = direct
    if not direct and "DateStyle" in wrong:  # The TimeZone may differ: instants have an offset.
        record.info[_PER_TRANSACTION] = True


def _require_version(driver: Any) -> None:
    """Raise ConfigurationError if the server is older than `OLDEST`; costs no round trip."""
    if 0 < driver.info.server_version < OLDEST:  # 0: a pooler has reported none.
        version = driver.info.parameter_status("server_version")
        driver.close()  # The pool does not have the connection yet.
        raise ConfigurationError(
            f"the server has PostgreSQL {version}; jobqueue needs {OLDEST // 10_000} or newer"
        )


def _is(reported: str | None, wanted: str) -> bool:
    """Return whether a setting has the value. `ISO, DMY` is ISO: we write the year first."""
    return reported is not None and reported.partition(",")[0] == wanted


def is_lost(record: ConnectionPoolEntry) -> bool:
    """Return whether an idle connection can no longer be used; costs no round trip."""
    driver: Any = record.dbapi_connection
    if driver is None:
        return False  # The pool reconnects it.
    # A server that ends a session sends a message, also to an idle client.
    if driver.closed or _has_news(driver.pgconn.socket):
        return True
    # A read-only session still reads, but from a server whose data may be outdated.
    return is_read_only(driver) and time.monotonic() - record.info[_MADE] > READ_ONLY_SECONDS


def begun(connection: Connection) -> None:
    """Set what a pooler keeps for one transaction only; call it after each begin."""
    if _PER_TRANSACTION in connection.info:
        set_local(connection, _SET_LOCAL)


def set_local(connection: Connection, settings: str) -> None:
    """Run SET LOCAL commands; where nothing has run yet, in one round trip with BEGIN.

    The driver sends BEGIN by itself, and waits for its answer. Not in the main thread, which runs
    the handlers of signals: Ctrl-C would not end a wait for the server.
    """
    from psycopg.pq import ExecStatus, TransactionStatus

    driver: Any = connection.connection.driver_connection
    session = driver.pgconn
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main and session.transaction_status == TransactionStatus.IDLE:
        done = session.exec_(f"BEGIN ISOLATION LEVEL READ COMMITTED; {settings}".encode())
        if done.status == ExecStatus.COMMAND_OK:
            return
    connection.exec_driver_sql(settings)  # Raises what SQLAlchemy makes of a lost session, too.


def _has_news(socket: int) -> bool:
    """Return whether an idle connection has data to read: nearly always the end of its session."""
    if not hasattr(select, "poll"):  # pragma: no cover - Windows, whose select takes any socket.
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def _escape(driver: Any) -> None:
    """If the database's encoding lacks characters, write those as JSON escapes.

    In JSON the text stays the same; in messages the escape shows which character it was.
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
    """Return Python's codec for a server's encoding; ASCII if Python has none."""
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
