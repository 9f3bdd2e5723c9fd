"""`worker --health-port`, `--metrics-port` and `--probe-host`."""

import contextlib
import socket
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from jobqueue import options
from jobqueue.cli.errors import CliError
from jobqueue.errors import invalid
from jobqueue.loggers import get_logger
from jobqueue.worker.observe.probe_server import LOOPBACK, Page, Probes, health_pages
from jobqueue.worker.worker import Worker

log = get_logger("jobqueue.cli")

PORTS = ("health_port", "metrics_port")

Ports = dict[str, int]
"""Port by option, of the options that were given. 0 is any free one."""


def ports_of(given: Mapping[str, Any]) -> Ports:
    """Return the ports that were given. Raises InvalidOption, also for a wrong --probe-host."""
    ports = {name: options.port(given[name], name) for name in PORTS if given[name] is not None}
    host = given["probe_host"]
    if not host:  # It would mean all addresses.
        raise invalid("probe_host", "give an address, such as 0.0.0.0 for all", host)
    if host != LOOPBACK and not ports:
        raise invalid("probe_host", "it needs --health-port or --metrics-port", host)
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: such a name cannot be.
        raise invalid(
            "probe_host", f"{host[:60]!r} is not an address of this machine", host
        ) from None
    return ports


def of_process(ports: Ports, number: int, count: int) -> list[str]:
    """Return the port options of one of several processes: PORT + number - 1."""
    for name, port in ports.items():
        if port != 0:
            options.port(port + count - 1, f"{name} of process {count}")
    return [
        f"--{name.replace('_', '-')}={port + number - 1 if port else 0}"
        for name, port in ports.items()
    ]


@contextlib.contextmanager
def bound(ports: Ports, worker: Worker, host: str = LOOPBACK) -> Iterator[list[Probes]]:
    """Bind the ports before the worker starts, so that a port in use stops the command."""
    pages: dict[int, dict[str, Page]] = {}
    for name, port in ports.items():
        # 0 twice means two ports.
        key = port or -len(pages) - 1
        made = (
            _metrics_page(worker) if name == "metrics_port" else health_pages(lambda: worker.health)
        )
        pages.setdefault(key, {}).update(made)
    with contextlib.ExitStack() as stack:
        probes = []
        for port, served in pages.items():
            try:
                probe = Probes(max(0, port), served, host)
            except OSError as error:
                raise CliError(
                    f"cannot listen on port {max(0, port)} of {host}: {error.strerror or error}",
                    field="port",
                    value=port,
                ) from None
            stack.callback(probe.close)
            probes.append(probe)
        yield probes


def _metrics_page(worker: Worker) -> dict[str, Page]:
    from jobqueue import prometheus  # An extra, which says so where it is missing.

    collector = prometheus.WorkerCollector(worker)
    return {
        "/metrics": lambda: (
            HTTPStatus.OK,
            prometheus.CONTENT_TYPE,
            prometheus.exposition(collector.collect()),
        )
    }


def serve(probes: list[Probes]) -> None:
    """Serve requests, once the worker has started."""
    for probe in probes:
        probe.serve()
        paths = " and ".join(probe.paths)
        log.info("answers on http://%s:%d%s", probe.host, probe.port, paths)
