"""`web`: the HTTP API, and perhaps a worker beside it."""

import threading

import click

from jobqueue.cli import app_loader as apps
from jobqueue.cli import log_format as logs
from jobqueue.cli import params
from jobqueue.cli.context import Command, Shared, pass_shared
from jobqueue.errors import ConfigurationError, InvalidOption, SchemaOutdated
from jobqueue.loggers import get_logger
from jobqueue.queue import JobQueue
from jobqueue.records import counted
from jobqueue.supervisor.signals import leave
from jobqueue.worker.settings import WorkerSettings
from jobqueue.worker.worker import Worker

log = get_logger("jobqueue.cli")

PORT_MAX = 65535


@click.command(cls=Command)
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen."
)
@click.option("--port", default="8081", show_default=True, metavar="N", help="0 is any free one.")
@click.option(
    "--token",
    envvar="JOBQUEUE_TOKEN",
    metavar="TEXT",
    help="What clients must send. Needed unless ADDRESS is loopback. [$JOBQUEUE_TOKEN]",
)
@click.option("--read-only", is_flag=True, help="Answer questions, and change nothing.")
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="A name under which clients ask, such as a proxy's; may be repeated.",
)
@click.option("--with-worker", is_flag=True, help="Run jobs in this process, too.")
@click.option("--concurrency", "-c", metavar="N", help="Jobs at once, with --with-worker.")
@logs.options
@pass_shared
def web(
    shared: Shared,
    *,
    host: str,
    port: str,
    token: str | None,
    read_only: bool,
    allow_hosts: tuple[str, ...],
    with_worker: bool,
    concurrency: str | None,
    log_format: str,
    log_level: str | None,
) -> int:
    """Serve the HTTP API until told to stop.

    On a loopback address no token is needed, unless one is set. The first SIGTERM or SIGINT stops
    in order: what is under way is answered, running jobs end; a second one stops at once.
    """
    shared.notes_default = False
    from jobqueue import web as front  # An extra, which says so where it is missing.
    from jobqueue.web.security import LOOPBACK_NAMES
    from jobqueue.web.server import Listener

    listener = Listener(host, _port(port))
    names = (*LOOPBACK_NAMES, listener.address) if listener.is_loopback else ()
    if token is not None and not token.strip():
        raise InvalidOption("token: it is empty", field="token")
    hosts = [*allow_hosts, *map(_bracketed, names)] or None
    app = shared.app
    queue = shared.queue
    listener.require(token=token is not None)
    asgi = front.create_app(queue, token=token, read_only=read_only, hosts=hosts)
    worker = _worker(shared, concurrency) if with_worker else None
    if worker is None and concurrency is not None:
        raise InvalidOption("concurrency: it needs --with-worker", field="concurrency")
    missing = _missing(queue, may_make=app is not None and not read_only)
    with logs.configured(log_format, log_level, debug=shared.debug):
        log.info("%s, %s", shared.target, counted(len(queue.registry), "task"))
        if app is None:
            log.warning("no app is named, so nothing can be enqueued here: give --app")
        if missing is not None:
            log.warning("%s; the first job that is enqueued makes one, too", missing)
        code = front.serve(
            asgi,
            host,
            _port(port),
            worker=worker,
            listening=lambda url: shared.print_json({"url": url}) if shared.json else None,
        )
    if code and any(thread.name.startswith("jobqueue-slot") for thread in threading.enumerate()):
        leave(code)
    return code


def _missing(queue: JobQueue, *, may_make: bool) -> SchemaOutdated | None:
    """What is said where there is no queue yet. Raises it if no request may make one, either."""
    try:
        queue.store.require_schema(makes=False)
    except SchemaOutdated as error:
        if may_make and queue.store.backend.one_writer and queue.store.revision() is None:
            return error
        raise
    return None


def _port(text: str) -> int:
    number = params.whole(text)
    if isinstance(number, int) and 0 <= number <= PORT_MAX:
        return number
    raise InvalidOption(f"port: {text[:20]!r} is none of 0 to {PORT_MAX}", field="port", value=text)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address and address[0] != "[" else address


def _worker(shared: Shared, concurrency: str | None) -> Worker:
    if shared.app is None:
        raise ConfigurationError(apps.NEEDED, field="app")
    slots = {} if concurrency is None else {"concurrency": params.whole(concurrency)}
    return shared.queue.worker_of(WorkerSettings.of(**slots))


COMMANDS = (web,)
