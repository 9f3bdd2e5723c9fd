"""The web server's look at the jobs that somebody waits for."""

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from jobqueue.web import concurrency


def test_after_a_slow_look_nobody_rests_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, rests, looks = itertools.count(0, 10), [], iter([[], [], [7]])
    fake = SimpleNamespace(monotonic=lambda: next(clock))  # A look takes ten seconds.

    async def look(_ended: Any, _ids: Any) -> list[int]:
        return next(looks)

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    async def wait() -> None:
        watcher = concurrency.JobWaiter(look, lambda _ids: [])  # type: ignore[arg-type]
        await asyncio.wait_for(watcher.wait_for(7), 30)
        await watcher._task

    monkeypatch.setattr(concurrency, "time", fake)
    monkeypatch.setattr(concurrency, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": rest}))
    asyncio.run(wait())
    assert rests == [1.0, 1.0, 1.0]
