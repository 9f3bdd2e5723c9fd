"""`doctor`: what is wrong or will be, and what to do."""

from dataclasses import replace

import click
from rich.text import Text

from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.errors import CliError
from jobqueue.cli.streams import echo
from jobqueue.cli.tables import console, put
from jobqueue.printable_text import escape_controls
from jobqueue.store.doctor import examine


@click.command(cls=Command)
@pass_cli
def doctor(cli: CliContext) -> None:
    """Say what is wrong or will be.

    Checks the database, the schema, clocks, workers, queues, jobs and schedules, and prints for
    each finding what to do. Exits with 1 if there is one. Changes nothing.
    """
    found = examine(cli.store)
    findings = [replace(each, remedy=cli.as_typed(each.remedy)) for each in found.findings]
    diagnosis = found._replace(findings=findings)
    if cli.json:
        cli.print_json(diagnosis.to_json())
    else:
        screen = console()
        for each in diagnosis.findings:
            put(screen, Text(escape_controls(each.sentence), style="bold"))
            put(screen, f"  {escape_controls(each.remedy)}")
    if diagnosis.findings:
        raise CliError(f"{cli.target}: {diagnosis.sentence}", field="url")
    if not cli.json:
        echo(f"{cli.target}: {diagnosis.sentence}")
