"""The lines of a view on the screen, with a cursor on what they are about."""

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from jobqueue.cli.commands.top.draw import memory
from jobqueue.cli.commands.top.views import Item, Line

CURSOR = Style(color="default", bgcolor="default", reverse=True)
"""Seen without colours too."""
STALE = Style(dim=True)


class Page(ScrollView, can_focus=True):
    """Lines, some of them items. The cursor stays with its item when the lines change."""

    def __init__(self) -> None:
        super().__init__(id="page")
        self._lines: Sequence[Line] = ()
        self._items: list[Item] = []
        self._key: tuple[str, str] | None = None
        """What the cursor was moved to; None: it is on the first item, whatever that is."""
        self.stale = False

    def show(self, lines: Sequence[Line]) -> None:
        """Show other lines. A cursor that was moved stays with its item, where that is seen."""
        at, line, is_new = self._at, self._line, not self._lines
        self._lines = lines
        items = {(line.item.kind, line.item.key): line.item for line in lines if line.item}
        self._items = list(items.values())
        if self._key is not None and self._key not in items:
            near = self._items[max(0, min(at, len(self._items) - 1)) :][:1]
            self._key = (near[0].kind, near[0].key) if near else None
        self.virtual_size = Size(self.size.width, len(lines))
        if self._key is not None and is_new:
            region = Region(0, self._line, 1, 1)
            self.scroll_to_region(region, animate=False, force=True)
        elif self._key is not None and self._line != line:
            y = self.scroll_offset.y + self._line - line
            self.scroll_to(y=y, animate=False, force=True)
        self.refresh()

    def begin(self, key: tuple[str, str] | None) -> None:
        """Forget the lines: another view is shown, with the cursor on that item."""
        self._lines, self._items, self._key = (), [], key
        self.virtual_size = Size(self.size.width, 0)
        self.scroll_home(animate=False)

    @property
    def item(self) -> Item | None:
        """What the cursor is on."""
        return self._items[self._at] if self._items else None

    @property
    def _at(self) -> int:
        keys = [(item.kind, item.key) for item in self._items]
        return keys.index(self._key) if self._key in keys else 0

    @property
    def _line(self) -> int:
        """The line that the cursor is on."""
        item = self.item
        return next(
            (at for at, line in enumerate(self._lines) if line.item and line.item is item), 0
        )

    def move(self, by: int) -> None:
        """Move the cursor by items; scroll where there is nothing to choose from."""
        if len(self._items) < 2:  # noqa: PLR2004
            self.scroll_relative(y=by, animate=False)
            return
        item = self._items[max(0, min(len(self._items) - 1, self._at + by))]
        self._key = (item.kind, item.key)
        lines = sum(line.item is item for line in self._lines)
        # The first and the last item bring along what is above and below them.
        top = 0 if item is self._items[0] else self._line
        end = len(self._lines) if item is self._items[-1] else self._line + lines
        region = Region(0, top, 1, min(end - top, self.size.height))
        self.scroll_to_region(region, animate=False, force=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen."""
        at = self.scroll_offset.y + y
        width = self.size.width
        if at >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        line = self._lines[at]
        text = line.text.copy()
        text.stylize_before(text.style)  # Its own style is not among its segments.
        segments = text.render(memory(width), end="")
        is_chosen = len(self._items) > 1 and line.item is not None and line.item is self.item
        strip = Strip(segments).adjust_cell_length(width)
        if is_chosen:
            strip = Strip(Segment.apply_style(strip, post_style=CURSOR))
        elif self.stale:
            strip = Strip(Segment.apply_style(strip, post_style=STALE))
        return strip.apply_style(self.rich_style)
