"""`top`: the tasks and tags that are paused, and the keys that resume them."""

from collections.abc import Iterator

import pytest

from jobqueue.cli.commands.top.reader import Reader
from jobqueue.cli.commands.top.verbs import Ask, Verbs, keys_of
from jobqueue.cli.commands.top.views import TABS, Line, Room, View, opened
from jobqueue.redaction import ShownJobs
from jobqueue.store.audit import Audit
from jobqueue.store.database import Store
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind
from tests.cli.conftest import Cli

APP = """
from jobqueue import JobQueue

jobs = JobQueue()

@jobs.task
def add(x: int) -> int:
    return x
"""


@pytest.fixture
def reader(it: Cli) -> Iterator[Reader]:
    it.id("add", 1, "--tag", "red")
    it.ok("pause", "--task", "add")
    it.ok("pause", "--tag", "red")
    assert it.url is not None
    store = Store(it.url)
    yield Reader(ShownJobs(store))
    store.close()


def paused(reader: Reader, view: View, room: Room = Room(100, 40)) -> list[Line]:
    lines = reader.read(view)(room)
    return [line for line in lines if line.item and line.item.kind == "pause"]


def test_what_is_paused_is_on_the_first_screen_and_among_the_queues(
    reader: Reader, it: Cli
) -> None:
    for view in (TABS["n"], TABS["q"]):
        tag, task = (line.text.plain for line in paused(reader, view))
        assert tag.startswith("tag red is paused by ")
        assert tag.endswith(": no job that has it starts")
        assert task.startswith("task add is paused by ")
        assert task.endswith(": no job of it starts")
    assert "task add is paused by " in it.ok("top", "--once")


def test_a_pause_leads_to_its_jobs_and_a_key_resumes_it(reader: Reader) -> None:
    for line, name in zip(paused(reader, TABS["n"]), ("tag red", "task add"), strict=True):
        item = line.item
        assert item is not None
        assert keys_of(item) == {"p": "resume"}
        listed = "\n".join(each.text.plain for each in reader.read(opened(item))(Room(100, 40)))
        assert "1  available" in listed
        ask = Verbs(reader._jobs, lambda: None).ask("p", item)
        assert isinstance(ask, Ask)
        assert ask.question == f"resume {name}"
        assert ask.act() == f"{name.capitalize()} is resumed."
    assert paused(reader, TABS["n"]) == []
    rows = Audit(reader._store).find(2)
    assert [(row["verb"], row["target"]) for row in rows] == [
        ("resume", {"task": "add"}),
        ("resume", {"tag": "red"}),
    ]


def test_many_pauses_leave_room_for_the_queues(reader: Reader) -> None:
    for place in range(20):
        Pauses(reader._store).pause(PauseKind.TAG, f"\x1b[31m{place:02}" + 40 * "x")
    low = reader.read(TABS["n"])(Room(60, 24))
    assert "… and 19 more paused: g q" in [line.text.plain for line in low]
    assert max(line.text.cell_len for line in low) <= 60
    assert len(low) <= 24
    assert all("\x1b" not in line.text.plain for line in low)
    assert len(paused(reader, TABS["q"], Room(60, 24))) == 22
    printed = reader.read(TABS["n"])(Room(60, 24, has_keys=False))
    assert "… and 19 more paused: jobqueue stats" in [line.text.plain for line in printed]
