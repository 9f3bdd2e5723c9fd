"""PostgreSQL URLs for any driver, reduced to the options that libpq knows.

An application shares one URL, with the options of its own driver. Options that libpq knows under
the same or another name are kept, options of the driver's caches are dropped, and all others are
refused by name.
"""

import re
from collections.abc import Callable
from functools import cache
from math import ceil
from urllib.parse import unquote

from sqlalchemy import URL

from jobqueue.errors import ConfigurationError
from jobqueue.options import PORT_MAX

_HOSTS = re.compile(r"([\w+]+://(?:[^:/]*(?::[^@]*)?@)?)([^/?@]*,[^/?@]*)((?:[/?].*)?)", re.DOTALL)
_NAMED = 3  # options in one message

MEANINGLESS = (
    # asyncpg, and SQLAlchemy's dialect for it
    *("prepared_statement_cache_size", "prepared_statement_name_func", "statement_cache_size"),
    *("max_cached_statement_lifetime", "max_cacheable_statement_size", "command_timeout"),
    # psycopg 3; and Prisma's option for a pooler, for which our connections need no option
    *("prepare_threshold", "pgbouncer"),
)
"""Options for the statements of the application's driver, which our driver does not need."""

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_CHOICES = {
    "sslmode": _SSL_MODES,
    "target_session_attrs": (
        *("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    ),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "sslnegotiation": ("postgres", "direct"),
    "load_balance_hosts": ("disable", "random"),
}
_NUMBERS = (
    *("connect_timeout", "tcp_user_timeout", "keepalives", "keepalives_idle"),
    *("keepalives_interval", "keepalives_count"),
)


def split_hosts(text: str) -> tuple[str, dict[str, str]]:
    """Split libpq's form of several hosts, `//h1:p1,h2:p2/db`, into (URL, options of the hosts).

    SQLAlchemy's parser does not support that form. Return any other text unchanged.
    """
    match = _HOSTS.fullmatch(text)
    if match is None:
        return text, {}
    head, hosts, tail = match.groups()
    several = _hosts(hosts.split(","))
    return head + tail, {**several, "host": unquote(several["host"])}  # A socket's folder: %2F.


def canonical(url: URL) -> URL:
    """Return the URL with libpq's options and no driver.

    Several hosts become `host=h1,h2` and `port=p1,p2` in its query. Raises ConfigurationError.
    """
    query = {key: _single(key, value) for key, value in url.query.items()}
    left_out = (*MEANINGLESS, *_TRANSLATED)
    options = {key: value for key, value in query.items() if key not in left_out}
    if "schema" in query and query.get("pgbouncer", "").lower() == "true":
        raise _error(
            "'schema' cannot be set through a pooler, which hands sessions on: leave it out, "
            "and set the role's search_path"
        )
    for name, translate in _TRANSLATED.items():
        if name in query:
            key, value = translate(name, query[name])
            options[key] = f"{options[key]} {value}" if key == "options" in options else value
    _refuse_unknown(options)
    _refuse_values(options)
    if isinstance(hosts := url.query.get("host"), tuple):
        options |= _hosts(hosts)
    _pair_ports(options)
    if url.port is not None and not 0 < url.port <= PORT_MAX:
        raise _error(f"the port of a host is a number from 1 to {PORT_MAX}")
    if not (url.database or options.get("dbname") or options.get("service")):
        raise _error("the database URL names no database; write postgresql://user@host/database")
    return url.set(drivername="postgresql", query=options)


def _hosts(given: "tuple[str, ...] | list[str]") -> dict[str, str]:
    """Return libpq's `host` and `port` for hosts that each may have a port; IPv6 in brackets."""
    hosts, ports = [], []
    for one in given:
        match = re.fullmatch(r"(?:\[(.*)\]|([^:]*))(?::(\d*))?", one)
        if match is None or (match[3] and not 0 < int(match[3]) <= PORT_MAX):
            raise _error(
                "one of the hosts in the database URL is not of the form host:port, with a number "
                f"from 1 to {PORT_MAX}; write postgresql://user@host1:5432,host2:5432/database"
            )
        hosts.append(match[1] if match[1] is not None else match[2])
        ports.append(match[3] or "")
    ported = {"port": ",".join(ports)} if any(ports) else {}
    return {"host": ",".join(hosts), **ported}


def _pair_ports(options: dict[str, str]) -> None:
    """Give each host its port: libpq uses a single port for all hosts."""
    hosts, ports = (options.get(key, "").split(",") for key in ("host", "port"))
    if len(ports) == 1 and ports[0]:
        ports *= len(hosts)
        options["port"] = ",".join(ports)
    if len(ports) not in (1, len(hosts)):
        raise _error("the database URL has not as many ports as hosts")


def _single(key: str, value: str | tuple[str, ...]) -> str:
    if isinstance(value, str):
        return value
    if key in ("host", "port"):
        return ",".join(value)
    raise _error(f"the option {key[:40]!r} is there more than once in the database URL")


def _refuse_unknown(options: dict[str, str]) -> None:
    if not options or (known := _keywords()) is None:
        return
    if unknown := sorted(set(options) - known):
        names = " and ".join(repr(name[:40]) for name in unknown[:_NAMED])
        verb = "is not an option" if len(unknown) == 1 else "are not options"
        raise _error(f"{names} {verb} that libpq knows; leave it out of the database URL")


def _refuse_values(options: dict[str, str]) -> None:
    for key, value in options.items():
        if (choices := _CHOICES.get(key)) and value not in choices:
            raise _error(f"{key!r} in the database URL is one of {', '.join(choices)}")
        if key in _NUMBERS and not re.fullmatch(r"-?\d{1,9}", value):
            raise _error(f"{key!r} in the database URL is a whole number")
        if key == "port" and not all(
            not one or (one.isascii() and one.isdigit() and 0 < int(one) <= PORT_MAX)
            for one in value.split(",")
        ):
            raise _error(f"the port of a host is a number from 1 to {PORT_MAX}")


@cache
def _keywords() -> frozenset[str] | None:
    """Return the options of the installed libpq; None without psycopg, reported elsewhere."""
    try:
        from psycopg import pq
    except ImportError:
        return None
    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())


def _ssl(name: str, value: str) -> tuple[str, str]:
    """Translate asyncpg's `ssl`, and libpq's `ssl=true`."""
    mode = "require" if value.lower() == "true" else value
    if mode not in _SSL_MODES:
        raise _error(f"{name!r} in the database URL is one of {', '.join(_SSL_MODES)}")
    return "sslmode", mode


def _direct(name: str, value: str) -> tuple[str, str]:
    if value.lower() not in ("true", "false"):
        raise _error(f"{name!r} in the database URL is true or false")
    return "sslnegotiation", "direct" if value.lower() == "true" else "postgres"


def _timeout(name: str, value: str) -> tuple[str, str]:
    """Translate asyncpg's connect timeout: seconds, which may have a fraction."""
    if not re.fullmatch(r"\d{1,9}(\.\d*)?", value):
        raise _error(f"{name!r} in the database URL is a number of seconds")
    return "connect_timeout", str(ceil(float(value)))


def _schema(_name: str, value: str) -> tuple[str, str]:
    """Translate Prisma's `schema`, the search path."""
    name = '"' + value.replace('"', '""') + '"'
    return "options", "-csearch_path=" + re.sub(r"([\\\s])", r"\\\1", name)


def _database(_name: str, value: str) -> tuple[str, str]:
    return "dbname", value


_TRANSLATED: dict[str, Callable[[str, str], tuple[str, str]]] = {
    "ssl": _ssl,
    "direct_tls": _direct,
    "timeout": _timeout,
    "schema": _schema,
    "database": _database,
}


def _error(message: str) -> ConfigurationError:
    return ConfigurationError(message, field="url")
