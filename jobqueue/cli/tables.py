"""Tables that fit the terminal, and the console that prints them. Data is never markup."""

import os
import shutil
import textwrap
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from jobqueue.cli.streams import STDERR, STDOUT
from jobqueue.printable_text import escape_controls
from jobqueue.states import State

T = TypeVar("T")
Cells = list[tuple[str, str]]
"""The parts of a line, each with its style."""

COLOURS = {
    State.SCHEDULED: "blue",
    State.AVAILABLE: "cyan",
    State.RUNNING: "yellow",
    State.SUCCEEDED: "green",
    State.FAILED: "bold red",
    State.CANCELLED: "magenta",
}
COLUMN_GAP = 2
UNLIMITED = 100_000
NAME_CELLS = 40
"""Cells of a task's or queue's name that stay visible: other columns are left out first."""

CELL_MAX = 200
"""The longest cell where no terminal sets a limit."""


def console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr: colours on terminals only, no markup or emoji."""
    file = STDERR if stderr else STDOUT
    screen = Console(file=file, highlight=False, markup=False, emoji=False)
    screen.no_color |= screen.is_dumb_terminal  # It would print the colour codes.
    return screen


def width_of(screen: Console) -> int:
    """Return the cells of a line: those of the terminal, $COLUMNS, or unlimited in a pipe."""
    if not screen.is_terminal and not os.environ.get("COLUMNS"):
        return UNLIMITED
    return shutil.get_terminal_size().columns  # rich takes a dumb terminal's to be 80.


def put(screen: Console, *lines: Text | str) -> None:
    """Print lines as they are: never wrapped, cut or interpreted."""
    for line in lines:
        text = line if isinstance(line, Text) else Text(line)
        text.rstrip()
        screen.print(text, soft_wrap=True)


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column of a table."""

    title: str
    cell: Callable[[T], object]
    rank: int = 0
    """Columns of a greater rank are left out first where there is no room; 0 always stays."""
    least: int | None = None
    """The column may be shortened to this many cells, or half of the line; None: never."""
    in_middle: bool = False
    """It is shortened in its middle: names that begin alike often differ at their ends."""
    wraps: bool = False
    """It goes on in further lines, instead of being shortened."""
    right: bool = False
    beside: tuple[str, Callable[[T], object]] | None = None
    """Its cell where the column with this title is shown too, which has the rest of it."""
    style: Callable[[T], str] | str = ""


class Table(Generic[T]):
    """Rows in columns, as many as fit; ids and states are never cut.

    `room` is the cells of a line, where they are not those of the screen. `has_more`: behind the
    sample there may be other rows, so that what it leaves empty may still have to be shown.
    """

    def __init__(
        self,
        columns: Sequence[Column[T]],
        sample: Sequence[T],
        screen: Console,
        room: int | None = None,
        *,
        has_more: bool = False,
    ) -> None:
        self._screen = screen
        self._has_more = has_more
        self._is_terminal = screen.is_terminal
        room = width_of(screen) if room is None else room
        self._choose(columns, sample, room)
        if any(column.beside and column.beside[0] in self._widths for column in columns):
            self._choose([_beside(column, self._widths) for column in columns], sample, room)

    def _choose(self, columns: Sequence[Column[T]], sample: Sequence[T], room: int) -> None:
        """Choose the columns that fit, and their widths."""
        cells = {column.title: [_cell(column, row) for row in sample] for column in columns}
        natural = {
            column.title: max([self._least(column), *map(cell_len, cells[column.title])])
            for column in columns
        }
        chosen = list(columns)
        if room != UNLIMITED:  # Empty columns are left out, but in a pipe they stay.
            chosen = [
                column
                for column in columns
                if not column.rank or any(cells[column.title]) or self._may_be_longer(column)
            ]
        names = [column for column in chosen if column.in_middle] if room != UNLIMITED else []
        most = room // 2
        clear = {each.title: _clear(each, cells[each.title], most, self._screen) for each in names}
        self._widths = _fit(chosen, natural, clear, room)
        self._columns = [column for column in chosen if column.title in self._widths]
        if self._may_be_longer(last := self._columns[-1]):
            left = room - _line_width(self._widths.values())
            self._widths[last.title] += min(max(0, left), CELL_MAX)

    def _may_be_longer(self, column: Column[T]) -> bool:
        """Return whether rows behind the sample may have more to say in the column."""
        return self._has_more and column.beside is not None

    def _least(self, column: Column[T]) -> int:
        least = column.least if self._may_be_longer(column) else None
        return max(len(column.title), least or 0)

    @property
    def titles(self) -> list[str]:
        """The columns that fit."""
        return [column.title for column in self._columns]

    def head(self) -> None:
        """Print the titles."""
        self._print(self._title())

    def rows(self, rows: Sequence[T]) -> None:
        """Print rows."""
        for row in rows:
            for line in self._lines(row):
                self._print(line)

    def lines(self, rows: Sequence[T]) -> list[Text]:
        """Return the titles and the rows as texts."""
        lines = [self._title(), *(line for row in rows for line in self._lines(row))]
        return [Text.assemble(*line) for line in lines]

    def _title(self) -> Cells:
        return self._joined([(column.title.upper(), "dim") for column in self._columns])

    def _lines(self, row: T) -> list[Cells]:
        columns = []
        for column in self._columns:
            style = column.style if isinstance(column.style, str) else column.style(row)
            columns.append([(text, style) for text in self._texts(column, row)])
        height = max(map(len, columns))
        return [
            self._joined([texts[n] if n < len(texts) else ("", "") for texts in columns])
            for n in range(height)
        ]

    def _texts(self, column: Column[T], row: T) -> list[str]:
        text, width = _cell(column, row), self._widths[column.title]
        if column.least is None or cell_len(text) <= width:
            return [text]
        shorten = cut_in_middle if column.in_middle else cut
        lines = textwrap.wrap(text, width) if column.wraps else [text]
        return [shorten(line, width, self._screen) for line in lines]

    def _joined(self, cells: Cells) -> Cells:
        line: Cells = []
        for column, (text, style) in zip(self._columns, cells, strict=True):
            missing = " " * (self._widths[column.title] - cell_len(text))
            gap = " " * COLUMN_GAP if line else ""
            line.append((gap + missing + text if column.right else gap + text + missing, style))
        return line

    def _print(self, line: Cells) -> None:
        if self._is_terminal:
            put(self._screen, Text.assemble(*line))
        else:  # Of many thousand lines, rich would take most of the time.
            self._screen.file.write("".join(text for text, _ in line).rstrip() + "\n")


def _beside(column: Column[T], shown: Collection[str]) -> Column[T]:
    """Return a column as it is beside those that are shown."""
    if column.beside is None or column.beside[0] not in shown:
        return column
    return replace(column, cell=column.beside[1])


def _clear(column: Column[Any], texts: Sequence[str], most: int, screen: Console) -> int:
    """Return the cells in which different names look different; 0 if that takes over `most`."""
    least = column.least or most
    long = {text for text in texts if cell_len(text) > least}
    widths = range(least, most + 1)

    def is_clear(width: int) -> bool:
        return len({cut_in_middle(text, width, screen) for text in long}) == len(long)

    found = bisect_left(widths, True, key=is_clear)
    return widths[found] if found < len(widths) else 0


def _fit(
    columns: Sequence[Column[Any]], natural: dict[str, int], clear: dict[str, int], room: int
) -> dict[str, int]:
    """Return the width of each column that fits; `clear` is what names need, if that is there."""
    least = {
        column.title: natural[column.title]
        if column.least is None
        else min(natural[column.title], max(min(column.least, room // 2), len(column.title)))
        for column in columns
    }
    wanted = least | {title: max(cells, least[title]) for title, cells in clear.items()}
    wanted = {title: min(cells, natural[title]) for title, cells in wanted.items()}
    if _line_width([wanted[column.title] for column in columns if not column.rank]) <= room:
        least = wanted
    ranked = sorted((column for column in columns if column.rank), key=lambda column: column.rank)
    while ranked and _line_width(least.values()) > room:
        del least[ranked.pop().title]
    widths = {title: natural[title] for title in least}
    while _line_width(widths.values()) > room and widths != least:
        widest = max(least, key=lambda title: widths[title] - least[title])
        widths[widest] -= 1
    return widths


def _line_width(widths: Collection[int]) -> int:
    return sum(widths) + COLUMN_GAP * (len(widths) - 1)


def _cell(column: Column[Any], row: Any) -> str:
    value = column.cell(row)
    text = "" if value is None else escape_controls(str(value)[: 4 * CELL_MAX])
    return text if cell_len(text) <= CELL_MAX else set_cell_size(text, CELL_MAX - 1) + "…"


def table(rows: Sequence[T], columns: Sequence[Column[T]], screen: Console | None = None) -> None:
    """Print a whole table."""
    screen = screen or console()
    whole = Table(columns, rows, screen)
    whole.head()
    whole.rows(rows)


def cut(text: str, width: int, screen: Console) -> str:
    """Shorten the text to at most `width` cells."""
    if cell_len(text) <= width:
        return text
    dots = "…" if screen.encoding.startswith("utf") else ".."
    return set_cell_size(text, max(0, width - len(dots))).rstrip() + dots


def cut_in_middle(text: str, width: int, screen: Console) -> str:
    """Shorten the text to at most `width` cells, and keep its end."""
    if cell_len(text) <= width:
        return text
    end = set_cell_size(text[::-1], max(0, width // 2 - 1))[::-1]
    # Its begin may be a mark, whose letter is left out, or a blank for half of a wide letter.
    while end and (end[0] == " " or not cell_len(end[0])):
        end = end[1:]
    return cut(text, width - cell_len(end), screen) + end
