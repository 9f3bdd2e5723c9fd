"""docs/architecture.md is true: its files exist, its budgets are the guard's, and a job passes the files that it lists."""

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import jobqueue
from jobqueue import JobQueue
from tests.pages import ROOT, blocks, text_of
from tests.test_architecture import EXPORTS, FILE_LINES, FUNCTION_LINES, NESTING

PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = Path(jobqueue.__file__).parent
DYES = ("20000002", "30000003", "50000005")
"""The arguments of the traced job, and its result: values that occur nowhere else."""
FILES_MAX = {"enqueue": 10, "run": 12, "read": 4}
RETURNS_MAX = {"enqueue": 2, "run": 11, "read": 0}
"""Calls back into a file that the job had left, at most; two are of a reconciliation at the start."""


class Tracer:
    """Records the files of the package of which a function is given a dye or returns one."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.returns: set[tuple[str, str]] = set()
        """(file, file that was called from there and that the job had passed before)."""
        self._last: dict[int, str] = {}

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        path = frame.f_code.co_filename
        if event not in ("call", "return") or not path.startswith(f"{PACKAGE}/"):
            return
        given = list(frame.f_locals.values()) if event == "call" else [value]
        if not any(map(_is_dyed, given)):
            return
        file, thread = Path(path).relative_to(PACKAGE).as_posix(), threading.get_ident()
        last = self._last.get(thread, file)
        if file not in self.files:
            self.files.append(file)
        elif event == "call" and last != file:
            self.returns.add((last, file))
        self._last[thread] = file


def _is_dyed(value: object) -> bool:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an object that is still being built, or changed by a thread
        return False
    # Whole numbers: the digits of a measured time may contain one.
    return (
        any(dye in text for dye in DYES)
        and re.search(rf"(?<![\d.])({'|'.join(DYES)})(?!\d)", text) is not None
    )


@contextmanager
def traced(install: Callable[[Any], None]) -> Iterator[Tracer]:
    tracer = Tracer()
    install(tracer)
    try:
        yield tracer
    finally:
        install(None)


def listed(backend_name: str) -> dict[str, set[str]]:
    """The files of the page's three lists, for one database."""
    other = {"sqlite": "(Postgres)", "postgres": "(SQLite)"}[backend_name]
    ways = [text for _, text in blocks(PAGE, "text")[1:]]
    return {
        way: {line.split()[0] for line in text.splitlines() if other not in line}
        for way, text in zip(FILES_MAX, ways, strict=True)
    }


def test_a_job_passes_the_files_that_the_page_lists(url: str, backend_name: str) -> None:
    with JobQueue(url) as jobs:

        @jobs.task
        def add(x: int, y: int) -> int:
            return x + y

        with traced(sys.setprofile) as enqueue:
            job = add.enqueue(20000002, 30000003)
        with traced(threading.setprofile) as run, jobs.worker(), traced(sys.setprofile) as read:
            assert job.result(timeout=60) == 50000005
    for way, tracer in {"enqueue": enqueue, "run": run, "read": read}.items():
        assert set(tracer.files) == listed(backend_name)[way], tracer.files
        assert len(tracer.files) <= FILES_MAX[way]
        assert len(tracer.returns) <= RETURNS_MAX[way], tracer.returns


def named_files() -> Iterator[str]:
    """Each file and folder that the page names, as a path from the root."""
    (_, tree), *ways = blocks(PAGE, "text")
    folder = ""
    for line in tree.splitlines():
        for name in re.findall(r"[\w/.]+/(?= )", line):
            folder = name
            yield f"jobqueue/{name}"
        if line.startswith("("):
            folder = ""
        yield from (f"jobqueue/{folder}{name}" for name in re.findall(r"\b\w+\.py", line))
    for _, way in ways:
        yield from (f"jobqueue/{line.split()[0]}" for line in way.splitlines())
    for name in re.findall(r"`([\w/]+(?:\.py|\.md|/))`", text_of(PAGE)):
        top = name.partition("/")[0]
        yield name if (ROOT / top).exists() and top != "store" else f"jobqueue/{name}"


def test_every_file_that_the_page_names_exists() -> None:
    names = list(named_files())
    assert len(names) > 100
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_the_page_is_short_and_its_budgets_are_those_of_the_guard() -> None:
    assert len(text_of(PAGE).splitlines()) <= 150
    budgets = re.findall(r"^\| .* \| (\d+) \|$", text_of(PAGE), re.MULTILINE)
    assert [int(number) for number in budgets] == [FILE_LINES, FUNCTION_LINES, NESTING, EXPORTS]
