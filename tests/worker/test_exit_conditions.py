"""The memory guard, by hand."""

import mmap
import resource
from pathlib import Path
from typing import Any

import pytest

from jobqueue.errors import InvalidOption
from jobqueue.options import size
from jobqueue.worker import exit_conditions
from jobqueue.worker.exit_conditions import outgrown, resident
from jobqueue.worker.settings import WorkerSettings


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ("500MB", 500_000_000),
        ("500 mb", 500_000_000),
        ("500m", 500_000_000),
        ("512MiB", 512 * 2**20),
        ("1.5GB", 1_500_000_000),
        ("2Gi", 2**31),
        ("20000kB", 20_000_000),
        ("30000000", 30_000_000),
        (30_000_000, 30_000_000),
    ],
)
def test_a_size_is_read(given: object, count: int) -> None:
    assert size(given) == count
    assert WorkerSettings.of(max_memory=given).max_memory == count


@pytest.mark.parametrize(
    "given",
    ["", "MB", "-5MB", "5 apples", "9MB", "1e9", "٣GB", 0, -1, True, 2**70, 1.5, [1], "9" * 16],
)
def test_what_is_no_size_is_refused(given: object) -> None:
    with pytest.raises(InvalidOption, match="write 500MB"):
        size(given)


def test_none_is_no_bound() -> None:
    assert WorkerSettings.of(max_memory=None).max_memory is None


def test_the_memory_of_now_is_told_and_not_that_of_the_past() -> None:
    before = resident()
    # Of the system's own, not of what an earlier test has left to this process.
    much = mmap.mmap(-1, 80_000_000)
    for _ in range(80):
        much.write(bytes(1_000_000))
    assert resident() - before > 60_000_000
    much.close()
    assert resident() - before < 30_000_000


def test_where_nobody_says_the_most_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(exit_conditions.Path, "read_text", nothing)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # On Linux it is in KiB.
    assert most / 2 < resident() < most * 2


def test_beyond_the_bound_it_says_so_once_with_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    present = [100_000_000, 200_000_001]
    monkeypatch.setattr(exit_conditions, "resident", lambda: present.pop(0))
    said: list[Any] = []
    assert not outgrown(200_000_000, said.append)
    assert said == []
    assert outgrown(200_000_000, said.append)
    assert said == ["it has 200 MB of memory, more than 200 MB"]
