"""`exec`: enqueue a command line."""

from typing import Any

import click

from jobqueue.cli import completion, params
from jobqueue.cli.commands.enqueue import changes_of, enqueue_one, job_options
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.params import option
from jobqueue.errors import invalid
from jobqueue.tasks import Call
from jobqueue.wire import make_call
from jobqueue.worker.execute.exec_task import EXEC, NAME


@click.command(NAME, cls=Command)
@click.argument(
    "argv",
    metavar="-- ARGV...",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=completion.path("file"),
)
@option(
    "--env variables",
    "KEY=VALUE",
    "Environment variable of the command; may be repeated.",
    multiple=True,
)
@option(
    "--cwd",
    "FOLDER",
    "Folder in which the command runs. [default: the worker's]",
    completion.path("dir"),
)
@job_options
@pass_cli
@click.pass_context
def exec_(context: click.Context, cli: CliContext, /, **given: Any) -> None:
    """Enqueue a command line and print its id.

    No shell reads it: each word is one argument. It is run by workers that were started with
    --allow-exec, in their environment without $JOBQUEUE_URL and $JOBQUEUE_TOKEN, and with
    $JOBQUEUE_JOB_ID, $JOBQUEUE_ATTEMPT and $JOBQUEUE_FENCE. Exit code 0 is success; the end of what
    it prints is the result, or part of the error.

    \b
      jobqueue exec -- pg_dump --file=/backup/app.sql app
      jobqueue exec --timeout 10m --cwd /srv/app -- ./import.sh 2026
      jobqueue exec --wait -- sh -c 'df -h | tail -n +2'
    """  # noqa: D301 - of click.
    if not given["argv"]:
        raise click.UsageError("Missing ARGV: write the command after --", context)
    enqueue_one(cli, given, lambda: _call(given))
    if not (cli.json or given["waits"] or cli.monitor.known_by()[NAME]):
        cli.note("no worker runs commands yet; start one with: jobqueue worker --allow-exec")


def _call(given: dict[str, Any]) -> Call[Any]:
    argv = [params.clean(word, "argv") for word in given["argv"]]
    if not argv[0]:
        raise invalid("argv", "the command is empty; write its name or path after --", "")
    variables = dict(params.key_value(text, "env") for text in given["variables"])
    named = {"env": variables, "cwd": given["cwd"] and params.clean(given["cwd"], "cwd")}
    return make_call(
        EXEC, argv, {name: value for name, value in named.items() if value}, changes_of(given)
    )
