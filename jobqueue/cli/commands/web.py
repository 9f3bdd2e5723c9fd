"""`web`: the dashboard and the HTTP API, and perhaps a worker beside them."""

from typing import Any

import click

from jobqueue import options
from jobqueue.cli import log_format as logs
from jobqueue.cli.commands.worker import leave_handlers
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.params import flag, option, whole_option
from jobqueue.errors import SchemaOutdated, invalid
from jobqueue.loggers import get_logger
from jobqueue.queue import JobQueue
from jobqueue.records import counted
from jobqueue.redaction import declare
from jobqueue.worker.settings import WorkerSettings
from jobqueue.worker.worker import Worker

log = get_logger("jobqueue.cli")


@click.command(cls=Command)
@option("--host", "ADDRESS", "Address to listen on.", default="127.0.0.1")
@whole_option("--port", "Port to listen on; 0 is any free one.", default="8081")
@option(
    "--token",
    "TEXT",
    "Token that clients must send; required unless ADDRESS is loopback. [$JOBQUEUE_TOKEN]",
    envvar="JOBQUEUE_TOKEN",
)
@flag("--read-only", "Refuse all requests that change something.")
@option(
    "--allow-host allow_hosts",
    "NAME",
    "Accept this name in the Host header, such as a proxy's; may be repeated.",
    multiple=True,
)
@option(
    "--allow-origin allow_origins",
    "URL",
    "Let pages of this site use the API, such as https://app.example; may be repeated.",
    multiple=True,
)
@flag("--access-log", "Log a line for each request.")
@flag("--with-worker", "Also run jobs in this process.")
@whole_option("--concurrency -c", "Run up to N jobs at once, with --with-worker. [default: 4]")
@logs.options
@pass_cli
def web(cli: CliContext, /, *, log_format: str, log_level: str | None, **given: Any) -> int:
    """Serve the dashboard and the HTTP API.

    It serves until a stop signal. The first SIGTERM or SIGINT stops in order: open requests
    are answered, running jobs end. A second one stops at once.
    """
    cli.notes_default = False
    port, token = options.port(given["port"]), given["token"]
    _check(token, given["concurrency"], with_worker=given["with_worker"])
    from jobqueue.web import create_app, serve  # An extra, which says so where it is missing.
    from jobqueue.web.server import BindAddress

    address = BindAddress(given["host"], port)
    address.require(token=token is not None)
    app, queue, read_only = cli.app, cli.queue, given["read_only"]
    asgi = create_app(
        queue,
        token=token,
        read_only=read_only,
        hosts=address.names(given["allow_hosts"]),
        origins=given["allow_origins"],
        access_log=given["access_log"],
    )
    worker = _worker(cli, given["concurrency"]) if given["with_worker"] else None
    missing = _missing(queue, may_make=app is not None and not read_only)
    if app is not None and missing is None and not read_only:
        declare(queue.store, queue.registry)
    with logs.configured(log_format, log_level, debug=cli.debug):
        log.info("%s, %s", cli.target, counted(len(queue.registry), "task"))
        if app is None:
            log.warning("no app is named, so nothing can be enqueued here: give --app")
        if missing is not None and worker is None:  # A worker makes the tables as it starts.
            log.warning("%s; the first job that is enqueued makes one, too", missing)
        code = serve(
            asgi,
            given["host"],
            port,
            worker=worker,
            listening=lambda url: cli.print_json({"url": url}) if cli.json else None,
        )
    leave_handlers(code)
    return code


def _check(token: str | None, concurrency: object, *, with_worker: bool) -> None:
    """Raise InvalidOption for options that cannot be used."""
    if token is not None and not token.strip():
        raise invalid("token", "it is empty")
    if concurrency is not None and not with_worker:
        raise invalid("concurrency", "it needs --with-worker")


def _missing(queue: JobQueue, *, may_make: bool) -> SchemaOutdated | None:
    """Return the error where the schema is missing. Raises it if no request may make one."""
    try:
        queue.store.require_schema(makes=False)
    except SchemaOutdated as error:
        if may_make and queue.store.backend.single_writer and queue.store.revision() is None:
            return error
        raise
    return None


def _worker(cli: CliContext, concurrency: int | None) -> Worker:
    cli.require_app()
    given = {} if concurrency is None else {"concurrency": concurrency}
    return cli.queue.worker_of(WorkerSettings.of(**given))
