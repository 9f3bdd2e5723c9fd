"""The options that all commands share, before or after the command, and what they stand for."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from shlex import quote
from typing import Any

import click

from jobqueue import options, paths
from jobqueue.cli import app_loader as apps
from jobqueue.cli.streams import STDOUT, echo
from jobqueue.config import APP_OF_WORKER, DEFAULT_URL, Database, database, find_app
from jobqueue.errors import ConfigurationError, InvalidOption, SchemaOutdated
from jobqueue.known_names import names_of, unknown
from jobqueue.printable_text import escape_controls, escape_json
from jobqueue.queue import JobQueue
from jobqueue.redaction import ShownJobs
from jobqueue.store.database import Store
from jobqueue.store.error_groups import ErrorGroups
from jobqueue.store.names import Names, names_in_use
from jobqueue.store.notify.notifier import Notifier
from jobqueue.store.stats import Monitor
from jobqueue.store.urls import as_text, masked, parse
from jobqueue.tasks import Registry

ENVIRONMENT = [
    ("JOBQUEUE_URL", "Database URL: sqlite:///file.db or postgresql://user@host/name."),
    ("JOBQUEUE_APP", "JobQueue of the app, as module:attribute."),
    ("JOBQUEUE_POOL_SIZE", "Maximum of connections for handlers; overrides the app."),
    ("JOBQUEUE_TOKEN", "Token that clients of `jobqueue web` must send."),
    ("NO_COLOR", "If set to anything, print no colours."),
]

PLACES = {"--url", "--app"}
COMMON = PLACES | {"--json", "--debug", "--help"}
FLAGS = "Print JSON; show tracebacks; show this help."
FORCE = " (--force takes it as it is)"


@dataclass
class CliContext:
    """The common options of one invocation, and the app, queue and database they stand for."""

    given_url: str | None = None
    given_app: str | None = None
    json: bool = False
    debug: bool = False
    log_json: bool = False
    """True if stderr is JSON, one object per line."""
    notes_default: bool = True
    """Print a note when the default database is used; False for commands that log it."""

    @cached_property
    def app(self) -> JobQueue | None:
        """The app's queue, or None where no app is named; imported once, when it is needed."""
        name, folder = find_app(self.given_app)
        if name is None:
            return None
        if self.given_url or os.environ.get("JOBQUEUE_URL"):
            # For a JobQueue() in the app: a relative path is resolved before the app changes the
            # current folder.
            os.environ["JOBQUEUE_URL"] = self.url
        return apps.load(name, folder)

    def require_app(self) -> JobQueue:
        """Return the app's queue. Raises ConfigurationError where no app is named."""
        if self.app is None:
            raise ConfigurationError(apps.APP_NEEDED, field="app")
        return self.app

    @cached_property
    def database(self) -> Database:
        """The database: as named, else the app's own, else the default."""
        found = database(self.given_url)
        if not found.named and self.app is not None:
            found = Database(as_text(self.app.store.url), self.app.store.named)
        with paths.meant_from(found.folder):
            url = as_text(parse(found.url))
        if self.notes_default and not found.named:
            shown = masked(parse(url))
            self.note(f"using {shown}, the default: no --url or $JOBQUEUE_URL names a database")
        return Database(url, found.named)

    @property
    def url(self) -> str:
        """The URL of the database."""
        return self.database.url

    @cached_property
    def queue(self) -> JobQueue:
        """The app's own queue, with its declared limits, for commands that enqueue or work.

        It is on the database that was named, if that differs from the app's. Without an app, a
        queue that declares nothing.
        """
        app, url = self.app, parse(self.url)
        if app is None:
            app = JobQueue(self.url if self.database.named else None)
        elif app.store.url != url:
            app = app.elsewhere(url)
        _at_the_end(app.close)
        return app

    @property
    def store(self) -> Store:
        """The database. Commands that only read or steer jobs do not import the app."""
        return self.queue.store if "queue" in self.__dict__ else self._store

    @cached_property
    def _store(self) -> Store:
        store = Store(self.url, named=self.database.named)
        _at_the_end(store.close)
        return store

    @property
    def jobs(self) -> ShownJobs:
        """The jobs in the database, as operators see them."""
        registry = self.queue.registry if "queue" in self.__dict__ else None
        return ShownJobs(self.store, registry)

    def as_typed(self, advice: str) -> str:
        """Return advice whose worker finds the app and the database as this command does."""
        known = "" if find_app(None)[0] else APP_OF_WORKER
        if self.given_app:
            known = f" --app {quote(self.given_app)}"
        if self.given_url:
            known += f" --url {quote(masked(parse(self.given_url)))}"
        return advice.replace(APP_OF_WORKER, known, 1)

    @property
    def monitor(self) -> Monitor:
        """The statistics of the database."""
        return Monitor(self.store)

    def error(self, text: str | None) -> str | None:
        """Return the signature that `--error` means. Raises InvalidOption."""
        return None if text is None else ErrorGroups(self.store).resolve(text)

    def unknown(self, check: Callable[[Names], InvalidOption | None]) -> InvalidOption | None:
        """Return the error of `check` for a name that neither the database nor the app knows.

        The app is imported last: a command that only reads or steers needs none for a known name.
        Raises SchemaOutdated if there is no schema yet and the app does not know the name either.
        """
        known = names_of(Registry())
        try:
            known |= names_in_use(self.store)
        except SchemaOutdated:
            if check(known | names_of(self.app_tasks)) is not None:
                raise
            return None
        return check(known) and check(known | names_of(self.app_tasks))

    def require_known(self, check: Callable[[Names], InvalidOption | None]) -> None:
        """Raise the error of `unknown`, if there is one."""
        if (error := self.unknown(check)) is not None:
            raise error

    def check_names(self, kind: str, names: Collection[str], *, force: bool = False) -> None:
        """Raise InvalidOption for a text that is not a name, or (not `force`) not known."""
        for name in names:
            options.name(name, kind)
        if not force:
            self.require_known(
                lambda known: unknown(kind, names, getattr(known, f"{kind}s"), FORCE)
            )

    @property
    def app_tasks(self) -> Registry:
        """The tasks of the app; none without an app, or (with a note) if its import fails."""
        try:
            return Registry() if self.app is None else self.app.registry
        except ConfigurationError as error:
            self.note(f"the tasks of the app are not known: {error}")
            return Registry()

    @property
    def target(self) -> str:
        """The database URL for messages, without passwords."""
        is_said = self.notes_default or self.database.named
        default = "" if is_said else " (the default: no database is named)"
        return masked(parse(self.url)) + default

    @property
    def notifier(self) -> Notifier:
        """What wakes the database's workers."""
        notifier = Notifier(self.store.backend.notification_sender(self.store.engine))
        _at_the_end(notifier.close)
        return notifier

    def wake_workers(self) -> None:
        """Wake sleeping workers."""
        self.notifier.notify()

    def print_json(self, value: Any) -> None:
        """Print one JSON document on stdout."""
        echo(to_json(value))

    def answer(self, document: Any, *lines: str) -> None:
        """Print the document with --json, else the lines."""
        echo(to_json(document) if self.json else "\n".join(lines))

    def note(self, message: str) -> None:
        """Print a note on stderr, except with --json."""
        if not self.json:
            echo(escape_controls(message), err=True)


def _at_the_end(close: Callable[[], None]) -> None:
    click.get_current_context().find_root().call_on_close(close)


def to_json(value: Any) -> str:
    """Return JSON text that stdout's encoding can represent."""
    encoding = STDOUT.encoding.lower().replace("-", "")
    return escape_json(value, ascii_only=not encoding.startswith("utf"))


pass_cli = click.make_pass_decorator(CliContext, ensure=True)
"""Passes the CliContext as the first argument of a command's function."""


def cli_of(context: click.Context) -> CliContext:
    """Return the CliContext of an invocation."""
    return context.find_root().ensure_object(CliContext)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    # An option after the command's name is parsed later, so it wins over one before it.
    if value is not None and value is not False:
        setattr(cli_of(context), str(parameter.name), value)


def _common_options() -> list[click.Option]:
    def option(*names: str, **attributes: Any) -> click.Option:
        return click.Option(
            names, expose_value=False, is_eager=True, callback=_remember, **attributes
        )

    return [
        option(
            "--url",
            "given_url",
            metavar="URL",
            help=f"Database. [default: $JOBQUEUE_URL, pyproject.toml, the app's, or {DEFAULT_URL}]",
        ),
        option(
            "--app",
            "given_app",
            metavar="NAME",
            help="JobQueue with the tasks, such as app:jobs. [default: $JOBQUEUE_APP, "
            "or pyproject.toml]",
        ),
        option("--json", is_flag=True, default=None, help="Print JSON."),
        option("--debug", is_flag=True, default=None, help="Show tracebacks."),
    ]


def _print_help(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        echo(context.get_help())
        context.exit()


_NEGATIVE = re.compile(r"-\.?\d")


class Command(click.Command):
    """A command of jobqueue: has the common options, and takes -5 for a value.

    `hints` are for an error of one of these types: what a new user may have meant.
    """

    def __init__(
        self,
        *args: Any,
        hints: Mapping[type[click.UsageError], str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.hints = hints or {}
        settings = {"help_option_names": ["-h", "--help"], "show_default": True}
        kwargs.setdefault("context_settings", settings)
        super().__init__(*args, **kwargs)
        self.params.extend(_common_options())

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return click's --help, printed through our streams."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _print_help
        return option

    def make_parser(self, ctx: click.Context) -> Any:
        """Return click's parser, changed so that `-5` is a value, not an option."""
        parser: Any = super().make_parser(ctx)
        process_options = parser._process_opts  # noqa: SLF001 - it has no other seam.

        def process(argument: str, state: Any) -> None:
            if _NEGATIVE.match(argument):
                state.largs.append(argument)
            else:
                process_options(argument, state)

        parser._process_opts = process  # noqa: SLF001
        return parser

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the command's own options."""
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        own = [one for one in options if not COMMON & set(one.opts)]
        if records := list(filter(None, (one.get_help_record(ctx) for one in own))):
            with formatter.section("Options"):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the common options at the end of every help page."""
        super().format_epilog(ctx, formatter)
        places = [one.get_help_record(ctx) for one in self.params if PLACES & set(one.opts)]
        with formatter.section("Common options"):
            formatter.write_dl([*filter(None, places), ("--json --debug -h", FLAGS)])
        if ctx.parent is None:
            with formatter.section("Environment"):
                formatter.write_dl(ENVIRONMENT)


class Group(Command, click.Group):
    """A family of commands."""

    command_class = Command
    group_class = type

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options and the commands."""
        Command.format_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Print the help as an error when no command is given."""
        if not (args or self.invoke_without_command or ctx.resilient_parsing):
            echo(self.get_help(ctx), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)
