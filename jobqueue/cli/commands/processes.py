"""`worker --processes` and `--reload`: the arguments of each process, and one summary."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from jobqueue import options
from jobqueue.cli import app_loader as apps
from jobqueue.cli import log_format, params
from jobqueue.cli.commands.probe_options import PORTS, Ports, of_process
from jobqueue.cli.context import CliContext
from jobqueue.config import find_app
from jobqueue.errors import ConfigurationError
from jobqueue.supervisor.supervisor import Supervisor
from jobqueue.supervisor.worker_process import SupervisorConfig
from jobqueue.worker.settings import WorkerSettings

PROCESSES_MAX = 1024
NOT_PASSED_ON = ("name", "processes", "reload", *PORTS)
"""Options of the supervisor itself, and those that differ between processes."""


def supervise(
    context: click.Context,
    cli: CliContext,
    settings: WorkerSettings,
    given: Mapping[str, Any],
    ports: Ports,
) -> int:
    """Run worker processes until a stop signal; return the exit code."""
    wanted = 1 if given["processes"] is None else given["processes"]
    count = options.whole(wanted, "processes", 1, PROCESSES_MAX)
    app, folder = find_app(cli.given_app)
    if app is None:
        raise ConfigurationError(apps.APP_NEEDED, field="app")
    apps.make_importable(folder)  # The processes get this path.
    began = time.monotonic()
    passed_on = _passed_on(context)
    if cli.debug:
        passed_on.append("--debug")

    def arguments(number: int) -> Sequence[str]:
        own = of_process(ports, number, count)
        if (name := given["name"]) is not None:
            own.append(f"--name={name}" if count == 1 else f"--name={name}-{number}")
        return [*passed_on, *own]

    arguments(count)  # Raises InvalidOption for a port beyond the range now, not at the last start.

    config = SupervisorConfig(
        arguments, count, settings.shutdown_timeout, _environment(cli), quiet=cli.json
    )
    supervisor = Supervisor(config, _watch(app, folder) if given["reload"] else None)
    with log_format.configured(given["log_format"], given["log_level"], debug=cli.debug):
        code = supervisor.run()
    if cli.json:
        summaries = supervisor.summaries
        cli.print_json(
            {
                "processes": count,
                "processed": sum(summary["processed"] for summary in summaries),
                "in_order": code == 0,
                "restarts": supervisor.restarts,
                "signal": supervisor.signal,
                "seconds": round(time.monotonic() - began, 3),
                "workers": summaries,
            }
        )
    return code


def _watch(app: str, folder: str | None) -> Callable[[], str | None]:
    from jobqueue.supervisor.reload import SourceWatcher  # An extra.

    return SourceWatcher.of_app(app, folder).changed


def _passed_on(context: click.Context) -> list[str]:
    """Return the given options that all processes share, as arguments."""
    return [
        parameter.opts[0] + ("" if value is True else f"={value}")
        for parameter, value in params.given_options(context)
        if parameter.name not in NOT_PASSED_ON
    ]


def _environment(cli: CliContext) -> dict[str, str]:
    """Environment of the worker processes; the URL is not in argv, as it may hold a password."""
    environment = dict(os.environ)
    if cli.given_url is not None:
        environment["JOBQUEUE_URL"] = cli.url
    if cli.given_app is not None:
        environment["JOBQUEUE_APP"] = cli.given_app
    return environment
