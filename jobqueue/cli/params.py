"""Values of the command line, and the options that filter jobs."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from jobqueue.cli import completion
from jobqueue.errors import InvalidOption, invalid
from jobqueue.options import integer
from jobqueue.states import State

F = TypeVar("F", bound=Callable[..., Any])

LIMIT_MAX = 1_000_000_000
_DECIMAL = re.compile(r"[+-]?(\d{1,15}(\.\d{0,15})?|\.\d{1,15})", re.ASCII)


def option(
    names: str, metavar: str, help_: str, complete: completion.Completer | None = None, **more: Any
) -> Callable[[F], F]:
    """Return an option with a value; `names` has blanks in between: `--tag tags`."""
    return click.option(
        *names.split(), metavar=metavar, help=help_, shell_complete=complete, **more
    )


def whole_option(names: str, help_: str, metavar: str = "N", **more: Any) -> Callable[[F], F]:
    """Return an option whose value is a whole number."""
    return option(names, metavar, help_, type=integer, **more)


def flag(names: str, help_: str) -> Callable[[F], F]:
    """Return an option without a value."""
    return click.option(*names.split(), is_flag=True, help=help_)


def all_of(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return a decorator that adds several options, in their order."""

    def add(function: F) -> F:
        for each in reversed(options):
            function = each(function)
        return function

    return add


filter_options = all_of(
    option(
        "--state state_name",
        "STATE",
        f"Only jobs in this state: {', '.join(State)}.",
        completion.states,
    ),
    option("--task", "NAME", "Only jobs of this task.", completion.tasks),
    option("--queue", "NAME", "Only jobs in this queue.", completion.queues),
    option("--tag", "NAME", "Only jobs with this tag.", completion.tags),
    option(
        "--error",
        "ID",
        "Only jobs whose last error is this one, by its id in `jobqueue errors`.",
        completion.errors,
    ),
)


def number(text: str) -> float | str:
    """Parse a decimal number; return any other text unchanged, for the range check to report."""
    return float(text) if _DECIMAL.fullmatch(text) else text


def clean(text: str, what: str) -> str:
    """Return the text if it is UTF-8. Raises InvalidOption with the byte's offset."""
    try:
        return text.encode("utf-8", "surrogateescape").decode()
    except UnicodeDecodeError as error:
        reason = f"{what}: invalid UTF-8 at byte offset {error.start}"
        raise InvalidOption(reason, field=what, value=text) from None


def given_options(context: click.Context) -> Iterator[tuple[click.Parameter, Any]]:
    """Yield the command's own parameters that stand on the command line, with their values."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in context.params and source is ParameterSource.COMMANDLINE:
            yield parameter, context.params[name]


def key_values(texts: Sequence[str], what: str) -> dict[str, str]:
    """Split each KEY=VALUE. Raises InvalidOption, also for a key that is given twice."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = clean(text, what).partition("=")
        if not key or not equals:
            raise invalid(what, f"{text[:40]!r} is not KEY=VALUE", text)
        if key in found:
            raise invalid(what, f"{key[:40]!r} is given twice", text)
        found[key] = value
    return found
