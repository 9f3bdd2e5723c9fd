"""`web`: the HTTP API, and perhaps a worker beside it."""

import threading
from dataclasses import dataclass
from typing import Any, Self

import click

from jobqueue import options
from jobqueue.cli import app_loader as apps
from jobqueue.cli import log_format as logs
from jobqueue.cli import params
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.errors import ConfigurationError, InvalidOption, SchemaOutdated
from jobqueue.loggers import get_logger
from jobqueue.queue import JobQueue
from jobqueue.records import counted
from jobqueue.supervisor.signals import leave
from jobqueue.worker.settings import WorkerSettings
from jobqueue.worker.worker import Worker

log = get_logger("jobqueue.cli")


@dataclass(frozen=True)
class WebOptions:
    """The options, checked."""

    host: str
    port: int
    token: str | None
    read_only: bool
    allow_hosts: tuple[str, ...]
    with_worker: bool
    concurrency: int | str | None

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Check options as click gives them. Raises InvalidOption."""
        token, concurrency = given["token"], given["concurrency"]
        port = options.port(params.whole(given["port"]))
        if token is not None and not token.strip():
            raise InvalidOption("token: it is empty", field="token")
        if concurrency is not None and not given["with_worker"]:
            raise InvalidOption("concurrency: it needs --with-worker", field="concurrency")
        jobs_at_once = None if concurrency is None else params.whole(concurrency)
        return cls(**(given | {"port": port, "concurrency": jobs_at_once}))

    def hosts(self, loopback: str | None) -> list[str] | None:
        """The names to be served; None: any, where the address is not a loopback one."""
        from jobqueue.web.security import LOOPBACK_NAMES

        own = () if loopback is None else (*LOOPBACK_NAMES, _bracketed(loopback))
        return [*self.allow_hosts, *own] or None


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@click.command(cls=Command)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on.",
)
@click.option(
    "--port",
    default="8081",
    show_default=True,
    metavar="N",
    help="Port to listen on; 0 is any free one.",
)
@click.option(
    "--token",
    envvar="JOBQUEUE_TOKEN",
    metavar="TEXT",
    help="Token that clients must send; required unless ADDRESS is loopback. [$JOBQUEUE_TOKEN]",
)
@click.option("--read-only", is_flag=True, help="Refuse all requests that change something.")
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="Accept this name in the Host header, such as a proxy's; may be repeated.",
)
@click.option("--with-worker", is_flag=True, help="Also run jobs in this process.")
@click.option(
    "--concurrency", "-c", metavar="N", help="Run up to N jobs at once, with --with-worker."
)
@logs.options
@pass_cli
def web(cli: CliContext, /, *, log_format: str, log_level: str | None, **given: Any) -> int:
    """Serve the HTTP API until a stop signal.

    The first SIGTERM or SIGINT stops in order: open requests are answered, running jobs end. A
    second one stops at once.
    """
    cli.notes_default = False
    asked = WebOptions.of(**given)
    from jobqueue.web import create_app, serve  # An extra, which says so where it is missing.
    from jobqueue.web.server import BindAddress

    address = BindAddress(asked.host, asked.port)
    address.require(token=asked.token is not None)
    app, queue = cli.app, cli.queue
    hosts = asked.hosts(address.address if address.is_loopback else None)
    asgi = create_app(queue, token=asked.token, read_only=asked.read_only, hosts=hosts)
    worker = _worker(cli, asked) if asked.with_worker else None
    missing = _missing(queue, may_make=app is not None and not asked.read_only)
    with logs.configured(log_format, log_level, debug=cli.debug):
        log.info("%s, %s", cli.target, counted(len(queue.registry), "task"))
        if app is None:
            log.warning("no app is named, so nothing can be enqueued here: give --app")
        if missing is not None:
            log.warning("%s; the first job that is enqueued makes one, too", missing)
        code = serve(
            asgi,
            asked.host,
            asked.port,
            worker=worker,
            listening=lambda url: cli.print_json({"url": url}) if cli.json else None,
        )
    if code and any(thread.name.startswith("jobqueue-slot") for thread in threading.enumerate()):
        leave(code)
    return code


def _missing(queue: JobQueue, *, may_make: bool) -> SchemaOutdated | None:
    """What is said where there is no queue yet. Raises it if no request may make one, either."""
    try:
        queue.store.require_schema(makes=False)
    except SchemaOutdated as error:
        if may_make and queue.store.backend.single_writer and queue.store.revision() is None:
            return error
        raise
    return None


def _worker(cli: CliContext, asked: WebOptions) -> Worker:
    if cli.app is None:
        raise ConfigurationError(apps.NEEDED, field="app")
    given = {} if asked.concurrency is None else {"concurrency": asked.concurrency}
    return cli.queue.worker_of(WorkerSettings.of(**given))


COMMANDS = (web,)
