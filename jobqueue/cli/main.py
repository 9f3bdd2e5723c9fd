"""The command `jobqueue`: its groups, and the one place where errors become exit codes."""

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import click

from jobqueue.cli import streams
from jobqueue.cli.commands.bulk_actions import cancel, delete, retry, update
from jobqueue.cli.commands.db import db
from jobqueue.cli.commands.demo import demo
from jobqueue.cli.commands.doctor import doctor
from jobqueue.cli.commands.enqueue import enqueue, exec_
from jobqueue.cli.commands.errors import errors
from jobqueue.cli.commands.jobs import list_, show, wait, why
from jobqueue.cli.commands.log import log, undo
from jobqueue.cli.commands.queues import pause, queues, resume
from jobqueue.cli.commands.schedules import schedules
from jobqueue.cli.commands.stats import prune, stats, tasks, workers
from jobqueue.cli.commands.top import top
from jobqueue.cli.commands.web import web
from jobqueue.cli.commands.worker import worker
from jobqueue.cli.completion import answer, completion
from jobqueue.cli.context import CliContext, Group
from jobqueue.cli.errors import INTERRUPTED, report
from jobqueue.os_signals import handle_to_the_end
from jobqueue.supervisor.pid_1 import run_as_pid_1


class _Root(Group):
    """The top: runs one command and always ends the process with an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,  # noqa: ARG002 - click's signature.
        standalone_mode: bool = True,  # noqa: ARG002
        **extra: Any,
    ) -> Any:
        """Run a command line; raises SystemExit."""
        name = prog_name or "jobqueue"
        if (code := answer(self, name)) is not None:  # A TAB was pressed.
            sys.exit(code)
        given = list(sys.argv[1:] if args is None else args)
        sys.exit(_run(self, name, given, extra))


def _run(root: click.Command, name: str, args: list[str], extra: dict[str, Any]) -> int:
    # A word about --json and --debug in time for an error in what stands before them.
    words = args[: args.index("--")] if "--" in args else args
    cli_context = CliContext(json="--json" in words, debug="--debug" in words)
    streams.prepare()
    try:
        try:
            with root.make_context(name, args, obj=cli_context, **extra) as context:
                code = root.invoke(context) or 0
        except click.exceptions.Exit as exit_:
            code = exit_.exit_code
        streams.STDOUT.flush()
    except (KeyboardInterrupt, click.Abort):
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - this is where every error ends.
        code = report(error, cli_context)
    return int(code)


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        try:
            version = metadata.version("jobqueue")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        streams.echo(f"jobqueue {version}")
        context.exit()


cli = _Root(
    "jobqueue",
    help="A durable job queue on SQLite or Postgres: enqueue jobs, run workers, look after both.",
)
cli.params.append(
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Show the version and exit.",
    )
)
for command in (
    *(enqueue, exec_, worker, list_, show, why, wait),
    *(cancel, retry, delete, update, undo, log),
    *(stats, workers, tasks, errors, top, doctor),
    *(queues, pause, resume, schedules, prune, db),
    *(web, completion, demo),
):
    cli.add_command(command)


def main() -> None:
    """The console script."""
    gc.freeze()  # What is imported stays: no collection looks through it again, not even the exit.
    # A database opened as descriptor 1 or 2 would receive printed text.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - stderr
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115
    if os.getpid() == 1:
        run_as_pid_1()
    atexit.register(streams.settle)  # First, so that it runs last.
    handle_to_the_end()
    cli.main()
