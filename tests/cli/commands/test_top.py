"""`top`: its pictures for any size, its keys and verbs, a database that is away, and a real terminal."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from jobqueue.cli.commands import top
from jobqueue.cli.commands.top import draw
from jobqueue.cli.commands.top.draw import spark
from jobqueue.cli.commands.top.poller import Poller
from jobqueue.cli.commands.top.reader import Reader
from jobqueue.cli.commands.top.screen import Top
from jobqueue.cli.commands.top.verbs import Verbs
from jobqueue.cli.commands.top.views import HELP, TABS, Line, Room, View
from jobqueue.overview import Point, Running
from jobqueue.redaction import ShownJobs
from jobqueue.states import State
from jobqueue.store.audit import Audit
from jobqueue.store.database import Store
from jobqueue.store.error_groups import ErrorGroups
from jobqueue.store.schema import jobs as table
from jobqueue.store.stats import Monitor
from tests.cli.conftest import ROOT, Cli
from tests.process_factory import popen

APP = """
from jobqueue import JobQueue

jobs = JobQueue()

@jobs.task(max_attempts=1)
def fail(message: str = "it broke", token: str = "") -> None:
    raise ValueError(message)

@jobs.task(redact=("token",))
def add(x: int, y: int = 0, token: str = "") -> int:
    return x + y
"""
EVIL = [
    "[red]x[/red]",
    "[/][@click=app.exit]",
    "\x1b[31m\x1b]0;title\x07",
    "\x9b31m\x07\u202etxt.exe\u200b",
    "two\nlines\ttab\r",
    "日本語 " * 20,
]
HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u202e]")
SIZES = [(80, 24), (120, 40), (200, 60)]


def test_the_keys_fit_a_terminal_of_80_columns() -> None:
    assert max(len(line.text) for line in HELP) <= 80


@pytest.fixture
def filled(it: Cli) -> Cli:
    """Three failed jobs and one that succeeded, one that waits in a paused queue, no worker."""
    for _ in range(3):
        it.id("fail")
    it.id("add", 2, "token=s3cret")
    it.drain()
    it.id("add", 5, "token=s3cret", "--queue", "mail")
    it.ok("queues", "pause", "mail")
    return it


@pytest.fixture
def reader(filled: Cli) -> Iterator[Reader]:
    assert filled.url is not None
    store = Store(filled.url)
    yield Reader(ShownJobs(store))
    store.close()


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobqueue.cli.commands.top.poller.COST_MAX", 1.0)


def said(reader: Reader, view: View, room: Room = Room(120, 40)) -> str:
    return "\n".join(line.text.plain for line in reader.read(view)(room))


# Pictures


def test_the_first_screen_says_what_moves_what_failed_and_what_is_wrong(filled: Cli) -> None:
    screen = filled.ok("top", "--once")
    assert "1 waiting" in screen and "3 failed 1h" in screen and "0 workers" in screen
    assert re.search(r"! no worker is alive, and jobs wait in", screen)
    queues = re.findall(r"^(default|mail) +(\d+) +(\d+) .*?(by \S+)?$", screen, re.MULTILINE)
    assert [(name, waiting) for name, waiting, *_ in queues] == [("default", "0"), ("mail", "1")]
    assert "by " in queues[1][3] and "start one with: jobqueue worker\n" in screen
    assert re.search(r"^[0-9a-f]{12} +fail +ValueError .* 3 +3 +3 ", screen, re.MULTILINE)
    assert re.search(r"^ *5 +available +add +5, token=\"‹hidden›\"", screen, re.MULTILINE)


def test_a_picture_fits_its_terminal(reader: Reader) -> None:
    views = [*TABS.values(), View("job", "1"), View("jobs", "failed queue:default")]
    for view in views:
        picture = reader.read(view)
        for width, height in SIZES:
            assert max(line.text.cell_len for line in picture(Room(width, height))) <= width
    narrow = reader.read(View("job", "1"))(Room(30))
    assert max(line.text.cell_len for line in narrow) <= 30
    for width, height in SIZES:  # Header and footer have a line each.
        assert len(reader.read(TABS["n"])(Room(width, height - 2))) <= height - 2


@pytest.mark.databases("sqlite")
def test_a_small_terminal_leaves_out_rows_and_says_how_many(reader: Reader) -> None:
    low = said(reader, TABS["n"], Room(80, 12))
    assert "… and 3 more: g j" in low and "ValueError" in low
    printed = said(reader, TABS["n"], Room(80, 12, has_keys=False))
    assert "… and 3 more: jobqueue list\n" in f"{printed}\n" and "g j" not in printed


@pytest.mark.databases("sqlite")
def test_a_job_shows_why_its_life_its_arguments_and_its_error(reader: Reader) -> None:
    page = said(reader, View("job", "1"))
    title, why, advice, *rest = filter(None, page.splitlines())
    assert (title, why) == ("job 1  fail  failed", "failed: 1 of 1 attempt, last ValueError")
    assert advice.startswith("to do: look at the error")
    assert rest[0].startswith("● ") and "✗ " in page
    assert "ValueError: it broke" in page and "Traceback" in page
    hidden = said(reader, View("job", "5"))
    assert "s3cret" not in hidden and "‹hidden›" in hidden and "queue mail paused since" in hidden


def is_add(line: Line) -> bool:
    return line.item is not None and line.item.it.task == "add"


@pytest.mark.databases("sqlite")
def test_jobs_are_found_by_what_is_typed(reader: Reader) -> None:
    for search, ids in {
        "failed": {1, 2, 3},
        "state:failed task:fail": {1, 2, 3},
        "queue:mail": {5},
        "add": {4, 5},
        "4": {4},
        "'": set(),
    }.items():
        lines = reader.read(View("jobs", search))(Room(100))
        assert {int(line.item.key) for line in lines if line.item} == ids
        assert all('token="‹hidden›"' in line.text.plain for line in lines if is_add(line))


@pytest.mark.databases("sqlite")
def test_what_jobs_hold_is_inert(filled: Cli, reader: Reader) -> None:
    for text in EVIL:
        filled.id("fail", text.replace("\x9b", ""))
    filled.drain()
    store = Store(str(filled.url))
    with store.write() as connection:
        for id_ in range(1, 12):  # Plain SQL may write names that our own interfaces refuse.
            names = dict.fromkeys(
                ("task", "queue", "worker", "reason", "result"), EVIL[(id_ + 4) % 6]
            )
            connection.execute(update(table).where(table.c.id == id_).values(names))
    views = [*TABS.values(), *(View("job", str(id_)) for id_ in range(1, 12))]
    pages = {view: said(reader, view, Room(200)) for view in views}
    store.close()
    assert not [view for view, page in pages.items() if HARMFUL.search(page.replace("\n", ""))]
    assert "[red]x[/red]" in pages[TABS["j"]] and "\\x1b[31m" in pages[TABS["j"]]
    assert "\\x9b31m" in pages[TABS["q"]] and "\\x9b31m" in pages[TABS["n"]].split("QUEUE")[0]


def test_an_hour_is_a_line_of_bars_that_does_not_fall_at_its_end() -> None:
    hour = [Point("", 0, 0)] * 30 + [Point("", 8, 0)] * 29 + [Point("", 1, 1)]
    assert spark(hour, 60).plain == "▁" * 30 + "█" * 29
    assert spark(hour, 12).plain == "▁" * 5 + "▇" + "█" * 5
    assert not spark([Point("", 0, 0)] * 60, 60)
    failing = [*hour[:40], Point("", 0, 8), *hour[41:]]
    assert [span.start for span in spark(failing, 60).spans if span.style == "red"] == [40]


def test_a_number_that_was_counted_up_to_a_bound_has_a_plus() -> None:
    row: dict[str, Any] = {"queue": "mail", "available": 100_000, "scheduled": 2, "running": 1}
    row |= {"available_more": True, "scheduled_more": False, "waiting": 100_002, "paused": False}
    row |= {"max_running": None, "oldest_available_seconds": 5.0, "pace": 0, "failed_hour": 0}
    row["hour"] = []
    [_, line] = draw.queue_list([row], {}, Room(100))
    assert re.search(r"^mail +100,000\+ \+ 2 +1 ", line.text.plain)
    first = draw.now(draw.Now([], [row], [], [], []), Room(100))[0]
    assert first.text.plain.startswith("100,000+ waiting, oldest 5s, 2 later")


def test_a_worker_shows_its_slots_and_what_is_stuck() -> None:
    jobs = [Running(9, "report", 75.0, "beyond its time"), Running(8, "add", 1.0, "")]
    row = {"worker": "w1", "host": "h", "queues": None, "processed": 4, "concurrency": 3}
    row |= {"jobs": jobs, "busy": 2, "alive": True, "heartbeat_age_seconds": 2.0}
    row |= {"slots": ["stuck", "busy", "free"], "stopping_at": None}
    line = draw.worker_list([row], Room(120))[1]
    assert re.search(r"^w1 +!■□ 2/3 +9 report 1m15s, beyond its time +2s ago +all", line.text.plain)
    lost = draw.worker_list([row | {"alive": False}], Room(120))[1].text
    assert "lost 2s ago" in lost.plain
    row |= {"slots": ["stuck", "busy"], "stopping_at": datetime.now(UTC)}
    stopping = draw.worker_list([row], Room(120))[1].text
    assert re.search(r"^w1 +!■ 2/3, draining +9 report", stopping.plain)
    ids = [line.item.key for line in draw.worker_jobs([row], Room(80)) if line.item]
    assert ids == ["9", "8"]


# The command


def test_what_cannot_be_shown_is_one_line(offline: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "stdin is not a terminal; to print it once: jobqueue top --once" in offline.refused(
        2, "top"
    )
    assert "a screen has none" in offline("--json", "top", "--once").stderr
    assert "interval" in offline.refused(2, "top", "--once", "--interval", "0")
    same = offline.refused(1, "stats", "--url", "sqlite:///none.db")
    assert offline.refused(1, "top", "--once", "--url", "sqlite:///none.db") == same
    monkeypatch.setattr(top, "_require_terminal", lambda: None)
    monkeypatch.delitem(sys.modules, "jobqueue.cli.commands.top.screen")
    monkeypatch.setitem(sys.modules, "textual", None)
    missing = "error: top, but for `top --once`, needs the extra `top`: pip install 'jobqueue[top]'"
    assert offline.refused(2, "top") == missing


# The screen

Play = Callable[["Screen"], Awaitable[None]]


class Screen:
    """The screen without a terminal."""

    def __init__(self, app: Top, pilot: Any) -> None:
        self.app, self._pilot = app, pilot

    @property
    def text(self) -> str:
        """What is on it, line by line."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(part.text for part in strip) for strip in strips)

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)

    async def until(self, text: str) -> None:
        """Wait until a text is there."""
        for _ in range(1500):
            await asyncio.sleep(0.02)  # A pilot's pause waits until this process computes nothing.
            if text in self.text:
                return
        pytest.fail(f"{text!r} is not on the screen:\n{self.text}")


def play(app: Top, script: Play, size: tuple[int, int] = (80, 24)) -> None:
    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await script(Screen(app, pilot))

    asyncio.run(run())


def made(reader: Reader, verbs: bool = True, read: Any = None, interval: float = 0.3) -> Top:
    able = Verbs(reader._jobs, lambda: None) if verbs else None
    return Top(read or reader.read, able, str, "shop.db", interval)


@pytest.mark.databases("sqlite")
def test_keys_lead_through_the_screen_and_verbs_ask_first(reader: Reader) -> None:
    store = reader._store

    async def script(screen: Screen) -> None:
        await screen.until("! no worker is alive")
        await screen.press("enter")
        await screen.until("to do: jobqueue worker --app MODULE:NAME --queues mail")
        await screen.press("g", "q")
        await screen.until("⏎ open  p pause")
        await screen.press("j", "p")
        await screen.until("resume queue mail, where 1 job waits? y / n")
        await screen.press("x")
        await screen.until("nothing was changed")
        assert Monitor(store).bounded_queues()[1]["paused"]
        await screen.press("p")
        await screen.until("y / n")
        await screen.press("y")
        await screen.until("Queue mail is resumed.")
        await screen.press("g", "e")
        await screen.until("⏎ open  r retry")
        await screen.press("r")
        await screen.until("retry 3 jobs that failed with fail ValueError")
        await screen.press("y")
        await screen.until("Retried 3 jobs.")
        await screen.press("/")
        screen.app._find.value = "task:add"
        await screen.press("enter")
        await screen.until("jobs that match: task:add")
        await screen.press("c")
        await screen.until("cancel job 5 (add), which is available?")
        await screen.press("y")
        await screen.until("Cancelled 1 job.")
        await screen.press("end", "enter")
        await screen.until("job 4  add  succeeded")
        await screen.press("c")
        await screen.until("job 4 is succeeded: it cannot be cancelled")
        await screen.press("r")
        await screen.until("job 4 (add) has succeeded: run it again?")
        await screen.press("n", "escape", "escape", "question_mark")
        await screen.until("KEYS")
        await screen.press("q")

    app = made(reader)
    play(app, script)
    assert not app._poller.is_alive()
    assert [(row["verb"], row["changed"]) for row in Audit(store).find(3)] == [
        ("cancel", 1),
        ("retry", 3),
        ("resume", 1),
    ]
    assert ShownJobs(store).states([1, 5]) == {1: State.AVAILABLE, 5: State.CANCELLED}


@pytest.mark.databases("sqlite")
def test_the_cursor_stays_with_its_job_once_it_was_moved(filled: Cli, reader: Reader) -> None:
    async def script(screen: Screen) -> None:
        await screen.press("g", "j")
        await screen.until("⏎ open  r retry")
        filled.id("add", 6)
        await screen.until(" 6  available")
        assert screen.app._page.item.key == "6"
        await screen.press("j")
        filled.ok("enqueue", "--from", "-", input='{"task": "add", "args": [7]}\n' * 40)
        while len(screen.app._page._lines) < 46:
            await asyncio.sleep(0.01)
        assert screen.app._page.item.key == "5"
        await screen.until(" 5  available")
        assert " 6  available" in screen.text

    play(made(reader), script)


@pytest.mark.databases("sqlite")
def test_back_from_a_job_the_cursor_is_on_it_again(filled: Cli, reader: Reader) -> None:
    """A verb there is about the job that was looked at, and not about the first one."""
    filled.ok("enqueue", "--from", "-", input='{"task": "add", "args": [7]}\n' * 40)

    async def script(screen: Screen) -> None:
        await screen.press("g", "j")
        await screen.until("45  available")
        await screen.press(*"j" * 30, "enter")
        await screen.until("job 15  add  available")
        await screen.press("escape")
        await screen.until("15  available")
        assert screen.app._page.item.key == "15"
        await screen.press("c")
        await screen.until("cancel job 15 (add), which is available?")
        await screen.press("n", "g", "e", "g", "j")
        await screen.until("45  available")
        assert screen.app._page.item.key == "45"

    play(made(reader), script)


@pytest.mark.databases("sqlite")
def test_a_screen_that_is_read_only_has_no_verbs(reader: Reader) -> None:
    async def script(screen: Screen) -> None:
        await screen.until("● live")
        await screen.press("g", "q", "p", "g", "j", "c", "r")
        await screen.until("⏎ open  esc back  / find")
        assert "read-only" in screen.text and "y / n" not in screen.text
        await screen.press("/", "ctrl+c")

    app = made(reader, verbs=False)
    play(app, script, (120, 40))
    assert app.return_code == 0
    assert Audit(reader._store).find(1)[0]["verb"] == "pause"


@pytest.mark.databases("sqlite")
def test_a_database_that_is_away_leaves_the_last_picture_and_never_freezes_the_screen(
    reader: Reader,
) -> None:
    is_away, is_slow, answers = threading.Event(), threading.Event(), threading.Event()

    def read(view: View) -> Any:
        if is_slow.is_set():
            assert answers.wait(30)
        if is_away.is_set():
            raise OperationalError("", {}, OSError("connection refused\x1b[31m[red]"))
        return reader.read(view)

    app = made(reader, read=read)
    app._late_after = 1000

    async def script(screen: Screen) -> None:
        await screen.until("● live")
        # A slow database is read less often: the picture's age alone does not make it old.
        picture, at = app._pictures[TABS["n"]]
        app._pictures[TABS["n"]] = picture, at - 5000
        app._asked_at = at - 6000
        app._draw_frame()
        assert not app._page.stale and "● live" in str(app._head.render())
        app._asked_at = at  # The view was left, and is looked at again.
        app._draw_frame()
        assert "○ reading" in str(app._head.render())
        is_away.set()
        await screen.until("○ old")
        await screen.until("refused\\x1b[31m[red]")
        assert app._page.stale and "this is from" in screen.text and "QUEUE" in screen.text
        is_away.clear()
        await screen.until("● live")
        app._late_after = 0.1
        is_slow.set()
        await screen.until("the database does not answer")
        await screen.press("question_mark")
        await screen.until("KEYS")
        await screen.press("escape")
        is_slow.clear()
        answers.set()
        await screen.until("● live")
        app._late_after = 1000  # By now the next answer may be late.
        app._draw_frame()
        assert not app._page.stale

    play(app, script)


def test_a_database_is_read_again_soon_however_long_it_did_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobqueue.cli.commands.top.poller.COST_MAX", 1e-9)
    monkeypatch.setattr("jobqueue.cli.commands.top.poller.PAUSE_MAX", 0.01)
    found: SimpleQueue[object] = SimpleQueue()
    poller = Poller(lambda view: lambda _: [], lambda *it: found.put(it), 0.001)
    poller.start()
    poller.look_at(TABS["n"])
    for _ in range(3):
        found.get(timeout=60)
    poller.end()


# A real terminal


@pytest.mark.databases("sqlite")
def test_a_terminal_gets_what_is_typed_at_once_and_is_as_before_in_the_end(filled: Cli) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(ours)
    env = {**os.environ, **filled.env, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = popen([sys.executable, "-m", "jobqueue", "top"], env=env, **streams)
    os.close(theirs)  # A read fails once the process is gone.
    try:
        shown = b""
        while "● live".encode() not in shown:
            shown += os.read(ours, 65536)
        os.write(ours, b"/q-as-text")  # In one piece, before the field has the focus.
        while b"q-as-text" not in shown:
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGTERM)
        while b"\x1b[?1049l" not in shown:
            shown += os.read(ours, 65536)
        assert process.wait(60) == 0
        assert termios.tcgetattr(ours) == before
        assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
