"""`db upgrade|current|sql|check`: the schema."""

import click

from jobqueue.cli.context import Command, Group, Shared, pass_shared
from jobqueue.cli.errors import Problem, complain
from jobqueue.cli.streams import echo
from jobqueue.store import migrate
from jobqueue.store.schema import REVISION


@click.group(cls=Group)
def db() -> None:
    """Create, upgrade and check the schema."""


@db.command(cls=Command)
@pass_shared
def upgrade(shared: Shared) -> None:
    """Create the schema, or upgrade it."""
    before, after = migrate.upgrade(shared.store.url)
    if shared.json:
        shared.print_json({"before": before, "after": after, "changed": before != after})
    elif before == after:
        echo(f"{shared.target} is at {after} already")
    else:
        echo(f"{shared.target}: {before or 'no schema'} → {after}")


@db.command(cls=Command)
@pass_shared
def current(shared: Shared) -> None:
    """Print the schema's revision."""
    found = shared.store.revision()
    if shared.json:
        shared.print_json({"revision": found, "needed": REVISION})
    else:
        echo(found or "none")


@db.command(cls=Command)
@click.option(
    "--dialect",
    type=click.Choice(["sqlite", "postgresql"]),
    help="Which SQL. [default: that of the database's URL]",
)
@pass_shared
def sql(shared: Shared, dialect: str | None) -> None:
    """Print the schema as SQL.

    Needs no connection.
    """
    text = migrate.ddl(dialect or shared.store.backend.name)
    if shared.json:
        shared.print_json({"sql": text})
    else:
        echo(text.rstrip())


@db.command(cls=Command)
@pass_shared
def check(shared: Shared) -> None:
    """Compare the schema with this version's.

    Exits with 1 if they differ.
    """
    found = shared.store.revision()
    problems: list[str] = []
    if found is None:
        problems = ["there is no jobqueue schema; make it with: jobqueue db upgrade"]
    elif found != REVISION:
        remedy = "upgrade jobqueue" if found > REVISION else "run: jobqueue db upgrade"
        problems = [f"the schema is {found}, this jobqueue needs {REVISION}; {remedy}"]
    else:
        problems = migrate.differences(shared.store.url)
    if shared.json:
        shared.print_json({"revision": found, "needed": REVISION, "problems": problems})
    else:
        for problem in problems[1:]:
            complain(problem)
    if problems:
        raise Problem(f"{shared.target}: {problems[0]}", field="url")
    if not shared.json:
        echo(f"{shared.target} has schema {found}, as it should be")


COMMANDS = (db,)
