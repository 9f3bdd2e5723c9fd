"""`db upgrade|current|sql|check`: the schema."""

import click

from jobqueue.cli.context import CliContext, Command, Group, pass_cli
from jobqueue.cli.errors import CliError, print_error
from jobqueue.cli.streams import echo
from jobqueue.store import migrate
from jobqueue.store.schema import REVISION


@click.group(cls=Group)
def db() -> None:
    """Create, upgrade and check the schema."""


@db.command(cls=Command)
@pass_cli
def upgrade(cli: CliContext) -> None:
    """Create the schema, or upgrade it."""
    before, after = migrate.upgrade(cli.store.url)
    said = f"{cli.target}: {before or 'no schema'} → {after}"
    if before == after:
        said = f"{cli.target} is at {after} already"
    cli.answer({"before": before, "after": after, "changed": before != after}, said)


@db.command(cls=Command)
@pass_cli
def current(cli: CliContext) -> None:
    """Print the schema's revision."""
    found = cli.store.revision()
    cli.answer({"revision": found, "needed": REVISION}, found or "none")


@db.command(cls=Command)
@click.option(
    "--dialect",
    type=click.Choice(["sqlite", "postgresql"]),
    help="SQL dialect. [default: that of the database's URL]",
)
@pass_cli
def sql(cli: CliContext, dialect: str | None) -> None:
    """Print the schema as SQL.

    Does not connect to the database.
    """
    text = migrate.ddl(dialect or cli.store.backend.name)
    cli.answer({"sql": text}, text.rstrip())


@db.command(cls=Command)
@pass_cli
def check(cli: CliContext) -> None:
    """Compare the schema with this version's.

    Exits with 1 if they differ.
    """
    found = cli.store.revision()
    problems: list[str] = []
    if found is None:
        problems = ["there is no jobqueue schema; make it with: jobqueue db upgrade"]
    elif found != REVISION:
        remedy = "upgrade jobqueue" if found > REVISION else "run: jobqueue db upgrade"
        problems = [f"the schema is {found}, this jobqueue needs {REVISION}; {remedy}"]
    else:
        problems = migrate.differences(cli.store.url)
    if cli.json:
        cli.print_json({"revision": found, "needed": REVISION, "problems": problems})
    else:
        for problem in problems[1:]:
            print_error(problem)
    if problems:
        raise CliError(f"{cli.target}: {problems[0]}", field="url")
    if not cli.json:
        echo(f"{cli.target} has schema {found}, as it should be")
