"""`worker`: run jobs until a stop signal."""

import contextlib
import functools
import gc
import logging
import os
import threading
import time
from contextlib import AbstractContextManager
from contextvars import copy_context
from typing import Any, NoReturn

import click
from sqlalchemy.exc import SQLAlchemyError

from jobqueue import options
from jobqueue.cli import completion, log_format
from jobqueue.cli.commands.probe_options import bound, ports_of, serve
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.params import flag, option, whole_option
from jobqueue.config import POOL_MAX, POOL_SIZE
from jobqueue.errors import invalid
from jobqueue.known_names import names_of, unknown
from jobqueue.loggers import get_logger
from jobqueue.os_signals import LAST_SECOND, StopSignals, leave
from jobqueue.printable_text import listed
from jobqueue.queue import JobQueue
from jobqueue.records import counted
from jobqueue.store.names import names_in_use
from jobqueue.store.urls import masked
from jobqueue.supervisor.channel import ControlChannel
from jobqueue.worker.execute.exec_task import NAME as EXEC
from jobqueue.worker.log_context import name_worker
from jobqueue.worker.observe.probe_server import LOOPBACK, Probes
from jobqueue.worker.settings import WorkerSettings
from jobqueue.worker.worker import Worker

log = get_logger("jobqueue.cli")

AS_GIVEN = (
    *("async_concurrency", "queues", "drain", "max_jobs", "max_memory", "lease"),
    *("shutdown_timeout", "poll", "name", "allow_exec"),
)
"""Options that are passed to the settings unchanged."""


@click.command(
    cls=Command, hints={click.UsageError: "the app is named by --app, as --app app:jobs"}
)
@whole_option("--concurrency -c", "Run up to N jobs at once.", default="4")
@whole_option("--async-concurrency", "Run up to N async jobs at once, in addition.", default="1000")
@option(
    "--autoscale",
    "MIN:MAX",
    "Adjust --concurrency between MIN and MAX: up while jobs wait, down while threads idle.",
)
@option(
    "--queues -q",
    "LIST",
    'Serve only these queues: "mail:2,default". A number limits its jobs at once.',
    completion.several_queues,
)
@flag("--drain", "Exit when no job is left to run.")
@whole_option("--max-jobs", "Exit after N jobs.")
@option(
    "--max-memory",
    "SIZE",
    "Shut down gracefully above this much memory (500MB); with --processes the worker is "
    "restarted.",
)
@option(
    "--lease",
    "TIME",
    "Time without a heartbeat after which the worker counts as dead.",
    default="30s",
)
@option("--shutdown-timeout", "TIME", "Time to wait for running jobs at a stop.", default="25s")
@option("--poll", "TIME", "Poll interval when no notification arrives.", default="1s")
@option(
    "--stats-interval",
    "TIME",
    "Time between two log lines with statistics; 0 turns them off.",
    default="10s",
)
@log_format.options
@whole_option(
    "--pool-size",
    "Maximum of connections for handlers in each process, besides the worker's own 3 or 4. "
    "[default: $JOBQUEUE_POOL_SIZE, the app's, or 4]",
)
@option("--name", "TEXT", "Name of the worker. [default: host and process id]")
@whole_option(
    "--processes",
    "Supervise N worker processes: restart those that die, stop all together. --concurrency, "
    "--queues, --max-jobs and other limits apply to each of them.",
)
@flag(
    "--reload",
    "Restart, with running jobs released, when a Python file changes: of the app, or below the "
    "folder of the pyproject.toml that names it, else the current one. Needs the extra reload.",
)
@whole_option(
    "--health-port",
    "Serve /healthz and /readyz. With --processes, worker k listens on PORT + k - 1.",
    "PORT",
)
@whole_option(
    "--metrics-port",
    "Serve /metrics for Prometheus. With --processes, ports are counted up as for "
    "--health-port. Needs the extra prometheus.",
    "PORT",
)
@option(
    "--probe-host",
    "ADDRESS",
    "Address for --health-port and --metrics-port. 0.0.0.0 or :: lets other hosts ask, "
    "without a token.",
    default=LOOPBACK,
)
@flag("--allow-exec", "Also run the command lines that `jobqueue exec` enqueues.")
@pass_cli
@click.pass_context
def worker(context: click.Context, cli: CliContext, /, **given: Any) -> int:
    """Run jobs of the app's tasks.

    The first SIGTERM or SIGINT lets running jobs end within the shutdown timeout; the exit code is
    0. A second one, or the timeout, releases them to be run again; the exit code is 1.
    """
    cli.notes_default = False
    settings, ports = _settings(given), ports_of(given)
    if given["pool_size"] is not None:
        size = options.whole(given["pool_size"], "pool_size", 1, POOL_MAX)
        os.environ[POOL_SIZE] = str(size)  # For a JobQueue() in the app, here and in children.
    if given["processes"] is not None or given["reload"]:
        from jobqueue.cli.commands.processes import supervise

        return supervise(context, cli, settings, given, ports)
    # It stays to the end, so that a signal before the worker's own StopSignals has its effect.
    with StopSignals(_interrupt_loading, may_raise=True) as early:
        try:
            channel = ControlChannel.from_environment()
            app = cli.require_app()
            own = cli.queue.worker_of(settings)
            tune_gc()
            early.defer()
        except KeyboardInterrupt:
            return 0  # No job has started, so the stop is one in order.
        if early.level:  # A bare `except:` in the app has swallowed the interrupt.
            return 0
        # With --json, stdout is the summary's alone, whatever handlers print.
        output = log_format.stdout_on_stderr() if cli.json else contextlib.nullcontext()
        logs = log_format.configured(given["log_format"], given["log_level"], debug=cli.debug)
        with logs, output:
            probes = bound(ports, own, given["probe_host"])
            run = functools.partial(_run, cli, app, own, settings, probes=probes, channel=channel)
            code, summary = copy_context().run(run, early=early)  # With its name, to its end.
        if cli.json:
            cli.print_json(summary)
        leave_handlers(code)
        return code


def _settings(given: dict[str, Any]) -> WorkerSettings:
    stats_interval = given["stats_interval"]
    return WorkerSettings.of(
        **_size(given["concurrency"], given["autoscale"]),
        **{name: given[name] for name in AS_GIVEN},
        stats_interval=None if stats_interval.strip(" 0.s") == "" else stats_interval,
    )


def _size(concurrency: int | str, autoscale: str | None) -> dict[str, int | str]:
    """Return the settings for a fixed number of threads, or for its bounds."""
    if autoscale is None:
        return {"concurrency": concurrency}
    least, colon, most = autoscale.partition(":")
    if not colon:
        raise invalid("autoscale", f"{autoscale!r}; write MIN:MAX, such as 2:8", autoscale)
    return {"min_concurrency": options.integer(least), "max_concurrency": options.integer(most)}


def _interrupt_loading() -> NoReturn:
    raise KeyboardInterrupt


def _run(
    cli: CliContext,
    app: JobQueue,
    own: Worker,
    settings: WorkerSettings,
    *,
    early: StopSignals,
    probes: AbstractContextManager[list[Probes]],
    channel: ControlChannel | None,
) -> tuple[int, dict[str, Any]]:
    began = time.monotonic()

    def stop_at_once() -> None:
        own.abort()
        leave(1, after=LAST_SECOND)

    with StopSignals(own.request_stop, stop_at_once) as stop, probes as served:
        if early.first is not None:
            stop.request(early.level, early.first)
        if channel is not None:
            channel.listen(functools.partial(stop.request, sender="the supervisor"))
        # Sent before a handler can end this process: the supervisor tells a worker that died at
        # work from one that could not start.
        own.start(None if channel is None else lambda: channel.send(began=own.name))
        name_worker(own.name)
        _log_startup(cli, app, settings)
        _warn_of_unknown_queues(cli, app, own, settings)
        serve(served)
        own.wait()
        if stop.first is not None:
            log.info("%s: stopping; a second signal stops at once", stop.first)
        nothing_left = own.stop()
    if not nothing_left:
        asked = stop.level > 1
        log.log(
            logging.WARNING if asked else logging.ERROR,
            "stopped %s; jobs that still ran are released to their queues",
            "at once, as asked" if asked else "before everything had ended",
        )
    summary = {
        "worker": own.name,
        "processed": own.processed,
        "in_order": nothing_left and stop.level <= 1,
        "failure": own.failure,
        "signal": stop.first,
        "seconds": round(time.monotonic() - began, 3),
    }
    if channel is not None:
        channel.send(ended=summary, grown=own.outgrown)
    return 0 if summary["in_order"] and own.failure is None else 1, summary


def tune_gc() -> None:
    """Make garbage collections rare and short in a process that only works.

    Every job allocates some containers, and a full collection visits all that the app has imported,
    none of which is garbage. Measured: a tenth of the interpreter's time in a drain.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, *gc.get_threshold()[1:])


def _log_startup(cli: CliContext, app: JobQueue, settings: WorkerSettings) -> None:
    tasks = sorted([*app.registry, *([EXEC] if settings.allow_exec else [])])
    served = "all queues" if settings.queues is None else f"queues {', '.join(settings.queues)}"
    known = counted(len(tasks), "task")
    log.info("%s, %s, %s: %s", cli.target, served, known, listed(tasks, 10) or "none")
    if not tasks:
        log.warning("the app registers no tasks, so this worker runs nothing")
    if app is not cli.queue:
        log.warning(
            "the app's own queue is on %s: what handlers enqueue through it goes there",
            masked(app.store.url),
        )


def _warn_of_unknown_queues(
    cli: CliContext, app: JobQueue, own: Worker, settings: WorkerSettings
) -> None:
    """Warn of queues to serve that are not known: they may come later, or be mistyped."""
    if settings.queues is None:
        return
    try:
        in_use = names_in_use(cli.store, besides=own.name)
    except SQLAlchemyError as error:  # Only a warning depends on it.
        log.warning(
            "cannot check whether the queues of --queues are known: %s", type(error).__name__
        )
        return
    known = (names_of(app.registry) | in_use).queues
    for queue in settings.queues:
        unserved = unknown("queue", [queue], known)
        if unserved is not None:
            hint = "; a limit is a number, as in mail:2" if ":" in queue else ""
            log.warning("%s%s", unserved, hint)


def leave_handlers(code: int) -> None:
    """Exit after a stop that was not in order, if a handler still runs."""
    if code and any(thread.name.startswith("jobqueue-slot") for thread in threading.enumerate()):
        leave(code)
