"""The live screen, an extra: textual shows it, keys lead through it, and threads do the rest."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from jobqueue.optional_dependencies import required

with required("top", "top, but for `top --once`, needs"):
    from textual import events
    from textual.app import App, ComposeResult
    from textual.binding import Binding
    from textual.message import Message
    from textual.widgets import Input, Static

from rich.text import Text

from jobqueue.cli.commands.top.page import Page
from jobqueue.cli.commands.top.poller import Poller
from jobqueue.cli.commands.top.verbs import Ask, Verbs, keys_of
from jobqueue.cli.commands.top.views import HELP, TABS, Item, Picture, Room, View, opened
from jobqueue.display import duration
from jobqueue.printable_text import escape_controls

NOTICE_LASTS = 8.0
"""Seconds for which what was done is shown."""
SLOW = 3.0
"""Seconds for which the database is asked, after which it is said not to answer."""
NARROW = 72
"""Cells of the screen below which the names of other views are letters."""
KEPT = 50
"""Views whose last picture is kept."""
STOPS = (signal.SIGTERM, signal.SIGHUP)


class Arrived(Message):
    """A view was read, or could not be."""

    def __init__(self, view: View, found: Picture | Exception) -> None:
        super().__init__()
        self.view, self.found = view, found


class Answered(Message):
    """What a thread was asked to do is done, or failed."""

    def __init__(self, answer: Ask | str | Exception) -> None:
        super().__init__()
        self.answer = answer


class Top(App[None]):
    """The screen. `verbs` is None if it is read-only; `in_words` describes an error in one line."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    #head, #foot, #find { height: 1; width: 100%; background: ansi_default; color: ansi_default; }
    #foot { height: auto; max-height: 3; }
    #page { height: 1fr; scrollbar-size: 0 0; background: ansi_default; color: ansi_default; }
    #find { border: none; padding: 0; display: none; }
    """
    BINDINGS = [  # noqa: RUF012 - as textual has it.
        Binding("ctrl+c", "quit", priority=True),
        Binding("ctrl+z", "suspend_process", priority=True),
    ]

    def __init__(
        self,
        read: Callable[[View], Picture],
        verbs: Verbs | None,
        in_words: Callable[[Exception], str],
        target: str,
        interval: float,
    ) -> None:
        super().__init__(ansi_color=True)
        self._verbs, self._in_words, self._target = verbs, in_words, escape_controls(target)
        self._late_after = SLOW
        self._trail = [TABS["n"]]
        self._left: dict[View, Item] = {}
        """What the cursor was on when another view was opened."""
        self._pictures: dict[View, tuple[Picture, float]] = {}
        self._asked_at = time.monotonic()
        self._trouble = ""
        self._asks: Ask | None = None
        self._is_busy = self._is_after_g = False
        self._notice = ("", 0.0)
        self._page, self._head, self._foot = Page(), Static(id="head"), Static(id="foot")
        self._find = Input(id="find", placeholder="failed queue:mail, or an id, a key, a task")
        self._poller = Poller(
            read, lambda view, found: self.post_message(Arrived(view, found)), interval
        )

    def compose(self) -> ComposeResult:
        """Place the four parts."""
        yield self._head
        yield self._page
        yield self._foot
        yield self._find

    def on_mount(self) -> None:
        """Start the poller, and exit at a signal."""
        self._page.focus()
        with suppress(ValueError, RuntimeError):  # Outside of the main thread there are no signals.
            for number in STOPS:
                asyncio.get_running_loop().add_signal_handler(number, self.exit)
        self.set_interval(1, self._draw_frame)
        self._poller.start()
        self._go(self._view)

    def on_unmount(self) -> None:
        """Stop the poller."""
        self._poller.end()

    # What is looked at

    @property
    def _view(self) -> View:
        return self._trail[-1]

    def _go(self, view: View) -> None:
        """Look at a view: at its last picture, until the next one is there."""
        if self._page.item is not None:
            self._left[self._view] = self._page.item
        self._trail = [*self._trail[-20:], view] if view != self._view else self._trail
        self._show(view, None)

    def _show(self, view: View, item: Item | None) -> None:
        self._page.begin(None if item is None else (item.kind, item.key))
        self._asked_at, self._trouble = time.monotonic(), ""
        self._poller.look_at(None if view.kind == "help" else view)
        self._draw()

    def _back(self) -> None:
        if len(self._trail) > 1:
            self._trail.pop()
            self._show(self._view, self._left.get(self._view))

    def on_arrived(self, message: Arrived) -> None:
        """Show what was read, or keep the last picture and say why it is old."""
        if isinstance(message.found, Exception):
            if message.view == self._view:
                self._trouble = self._in_words(message.found)
                self._draw_frame()
            return
        self.keep(message.view, message.found)
        if message.view == self._view:
            self._trouble = ""
            self._draw()

    def keep(self, view: View, picture: Picture) -> None:
        """Keep what a view shows now."""
        self._pictures.pop(view, None)
        self._pictures[view] = picture, time.monotonic()
        while len(self._pictures) > KEPT:
            self._pictures.pop(next(iter(self._pictures)))

    def on_resize(self) -> None:
        """Draw the same picture for another size."""
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        room = Room(self._page.size.width or self.size.width, self._page.size.height or None)
        if self._view.kind == "help":
            self._page.show(HELP)
        elif self._view in self._pictures:
            self._page.show(self._pictures[self._view][0](room))
        self._draw_frame()

    # The lines above and below

    def _draw_frame(self) -> None:
        now = time.monotonic()
        at = self._pictures[self._view][1] if self._view in self._pictures else None
        is_late = self._poller.reads_for > self._late_after
        is_old = self._view.kind != "help" and (bool(self._trouble) or is_late)
        if self._page.stale != is_old:
            self._page.stale = is_old
            self._page.refresh()
        is_read = self._view.kind == "help" or (at is not None and at >= self._asked_at)
        state = Text("● live", "green") if is_read else Text("○ reading")
        self._head.update(self._headline(Text("○ old", "bold red") if is_old else state))
        if is_old and self._asks is None:
            why = self._trouble or "the database does not answer"
            since = "" if at is None else f"this is from {duration(round(now - at))} ago: "
            self._foot.update(Text(f"{since}{escape_controls(why)}", "bold red"))
        else:
            self._foot.update(self._footline(now))

    def _headline(self, state: Text) -> Text:
        line = Text("jobqueue ", "bold")
        for key, view in TABS.items():
            is_here, name = view.kind == self._tab, view.kind.capitalize()
            if self.size.width < NARROW and not is_here:
                name = key.upper()
            line.append(" ")
            line.append(f" {name} " if is_here else name, "reverse bold" if is_here else "")
            if not is_here:
                line.stylize("underline", len(line) - len(name), len(line) - len(name) + 1)
        if self._verbs is None:
            state = Text("read-only ", "yellow") + state
        target = Text(self._target, "dim")
        room = self.size.width - line.cell_len - state.cell_len - 3
        target.truncate(max(0, room), overflow="ellipsis")
        gap = max(1, self.size.width - line.cell_len - target.cell_len - state.cell_len - 1)
        return line + Text(" " * gap) + target + Text(" ") + state

    @property
    def _tab(self) -> str:
        tabs = [view.kind for view in self._trail if view.kind in {t.kind for t in TABS.values()}]
        return tabs[-1]

    def _footline(self, now: float) -> Text:
        if self._asks is not None:
            return Text(f"{escape_controls(self._asks.question)}? ", "bold") + Text(
                "y / n", "bold yellow"
            )
        said, until = self._notice
        if now < until:
            return Text(escape_controls(said), "bold")
        item = self._page.item
        keys = {"⏎": "open"} if item is not None and self._view.kind != "job" else {}
        keys |= keys_of(item) if self._verbs else {}
        keys |= {"esc": "back"} if len(self._trail) > 1 else {}
        keys |= {"/": "find", "g": "go to", "?": "keys", "q": "quit"}
        line = Text()
        for key, does in keys.items():
            line.append(key, "bold")
            line.append(f" {does}  ", "dim")
        return line

    def _say(self, notice: str) -> None:
        self._notice = notice, time.monotonic() + NOTICE_LASTS
        self._draw_frame()

    # Keys

    def on_key(self, event: events.Key) -> None:
        """Do what a key means now."""
        if self._find.display:  # It has the focus a little later.
            if event.key == "escape":
                self._close_find()
            elif event.character and event.is_printable:
                self._find.insert_text_at_cursor(event.character)
            return
        event.stop()
        self._notice = ("", 0.0)
        if self._asks is not None:
            self._answer(event.key)
        elif self._is_after_g:
            self._is_after_g = False
            if event.key in TABS:
                self._go(TABS[event.key])
        else:
            self._press(event.key)

    def _press(self, key: str) -> None:
        height = max(1, self._page.size.height - 1)
        moves = {
            "j": 1,
            "down": 1,
            "k": -1,
            "up": -1,
            "home": -(10**6),
            "end": 10**6,
            "pagedown": height,
            "space": height,
            "pageup": -height,
        }
        acts: dict[str, Callable[[], object]] = {
            "enter": self._open,
            "escape": self._back,
            "backspace": self._back,
            "slash": self._open_find,
            "question_mark": lambda: self._go(View("help")),
            "q": self.exit,
            "ctrl+l": lambda: self.refresh(layout=True),
        }
        if key in moves:
            self._page.move(moves[key])
            self._draw_frame()
        elif key == "g":
            self._is_after_g = True
        elif key in acts:
            acts[key]()
        elif self._verbs is not None and key in keys_of(self._page.item):
            self._prepare(key)

    def _open(self) -> None:
        item = self._page.item
        if item is not None and self._view.kind != "job":
            self._go(opened(item))

    def _open_find(self) -> None:
        self._find.value = self._view.name if self._view.kind == "jobs" else ""
        self._foot.display, self._find.display = False, True
        self.set_focus(self._find)

    def _close_find(self) -> None:
        self._foot.display, self._find.display = True, False
        self.set_focus(self._page)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Look for jobs."""
        self._close_find()
        self._go(View("jobs", message.value.strip()))

    # Verbs

    def _prepare(self, key: str) -> None:
        item, verbs = self._page.item, self._verbs
        assert item is not None
        assert verbs is not None
        self._start(lambda: verbs.ask(key, item))

    def _answer(self, key: str) -> None:
        ask, self._asks = self._asks, None
        if key in ("y", "Y") and ask is not None:
            self._start(ask.act)
        else:
            self._say("nothing was changed")

    def _start(self, work: Callable[[], Ask | str]) -> None:
        """Do what needs the database in a thread of its own."""
        if self._is_busy:
            self._say("the last verb is not done yet")
            return

        def run() -> None:
            try:
                answer: Ask | str | Exception = work()
            except Exception as error:  # noqa: BLE001 - the screen shows it.
                answer = error
            self.post_message(Answered(answer))

        self._is_busy = True
        threading.Thread(target=run, name="jobqueue-top-verb", daemon=True).start()

    def on_answered(self, message: Answered) -> None:
        """Show what a verb would do as a question, or what it has done."""
        self._is_busy = False
        if isinstance(message.answer, Ask):
            self._asks = message.answer
            self._draw_frame()
            return
        said = message.answer
        self._say(self._in_words(said) if isinstance(said, Exception) else said)
        self._poller.look_at(self._view)
