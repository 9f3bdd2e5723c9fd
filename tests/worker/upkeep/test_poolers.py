"""A worker behind a pooler in transaction mode, where no notification arrives."""

from collections.abc import Callable
from typing import Any

import pytest
from pooler import Pooler

from jobqueue import JobQueue
from jobqueue.store.notify import postgres

POLL = 180.0  # seconds


@pytest.mark.databases("postgres")
def test_jobs_that_follow_others_do_not_wait_for_the_poll(
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wait_until: Callable[..., Any],
) -> None:
    monkeypatch.setattr(postgres, "PROOF_SECONDS", 0.2)
    with Pooler(url) as pooler, JobQueue(pooler.url) as jobs:

        @jobs.task
        def echo(value: int) -> int:
            return value

        first = echo.enqueue(0)
        with jobs.worker(poll=POLL):
            assert first.result(timeout=30) == 0
            wait_until(lambda: "no notification arrives" in caplog.text)
            for value in range(3):
                assert echo.enqueue(value).result(timeout=POLL / 3) == value
    assert caplog.text.count("no notification arrives") == 1
    assert "failed" not in caplog.text
