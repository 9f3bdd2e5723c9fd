"""The protocol of services: rounds, rests, wake-ups, failures, and ends in any order."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from jobqueue.worker import service_thread
from jobqueue.worker.service_thread import BACKOFF_MAX, Service


class Counter(Service):
    """Counts its rounds."""

    def __init__(self, *rests: float | None | Exception) -> None:
        super().__init__("counter")
        self.rests = list(rests)
        self.rounds = 0
        self.drained = 0
        self.began = threading.Semaphore(0)

    def tick(self) -> float | None:
        self.rounds += 1
        self.began.release()
        rest = self.rests.pop(0) if self.rests else None
        if isinstance(rest, Exception):
            raise rest
        return rest

    def drain(self) -> None:
        self.drained += 1


@pytest.fixture
def made() -> Any:
    services: list[Service] = []

    def make(*rests: Any) -> Counter:
        services.append(Counter(*rests))
        return services[-1]  # type: ignore[return-value]

    yield make
    for service in services:
        service.stop()
        assert service.join(60)


def seen(service: Counter, rounds: int) -> bool:
    return all(service.began.acquire(timeout=60) for _ in range(rounds))


def test_a_rest_of_zero_means_the_next_round_at_once(made: Any) -> None:
    service = made(0, 0, 0)
    service.start()
    assert seen(service, 4)


def test_a_rest_of_none_lasts_until_the_service_is_woken(made: Any) -> None:
    service = made()
    service.start()
    assert seen(service, 1)
    service.wake()
    assert seen(service, 1)


def test_a_rest_lasts_so_long_unless_the_service_is_woken(made: Any) -> None:
    service = made(0.01, 3600)
    service.start()
    assert seen(service, 2)
    service.wake()
    assert seen(service, 1)


def test_a_wake_up_during_a_round_is_not_lost(made: Any) -> None:
    service = made()
    service.rests = []
    once: list[int] = []
    tick = service.tick

    def wakes_itself() -> float | None:
        if not once:
            once.append(1)
            service.wake()
        return tick()  # type: ignore[no-any-return]

    service.tick = wakes_itself
    service.start()
    assert seen(service, 2)


def test_a_round_that_raises_is_logged_once_and_tried_again(
    made: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "jobqueue")
    monkeypatch.setattr(service_thread, "BACKOFF_FIRST", 0.0001)
    service = made(*[ValueError(f"no {n}\nsecond line") for n in range(5)], 0)
    service.start()
    assert seen(service, 7)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "counter: failed 1 time, retrying: ValueError: no 0",
        "counter: works again after failing 5 times",
    ]
    assert not service.failing


def test_a_round_that_fails_in_a_stop_is_not_called_trying_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "jobqueue")
    service = Counter(ValueError("no"))
    service.stop()
    service.round()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "counter: stopped in a round that failed: ValueError: no")
    ]


def test_rests_after_failures_grow_to_a_bound() -> None:
    service = Counter(*[ValueError() for _ in range(2000)])
    rests = [service.round() for _ in range(2000)]
    assert all(rest is not None and 0 < rest <= BACKOFF_MAX for rest in rests)
    assert rests[0] is not None and rests[0] <= 0.2  # noqa: PT018
    assert min(rest for rest in rests[50:] if rest is not None) >= BACKOFF_MAX / 2
    assert service.failing
    assert service.round() is None
    assert not service.failing


@pytest.mark.parametrize("round_takes", [0.005, 2.0], ids=["woken all the time", "at rest"])
def test_a_failure_that_lasts_is_logged_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, round_takes: float
) -> None:
    service = Counter(*[ValueError("no") for _ in range(1000)])
    present = itertools.count()
    monkeypatch.setattr(service_thread.time, "monotonic", lambda: next(present) * round_takes)
    for _ in range(1000):
        service.round()
    lines = len(caplog.records)
    assert lines == 1 + int(999 * round_takes / service_thread.REPEAT_LOG)


@pytest.mark.parametrize(
    "verbs",
    [
        ["stop", "start", "join"],
        ["start", "start", "stop", "stop", "join", "join"],
        ["wake", "stop", "join"],
        ["join", "wake", "start", "wake", "stop", "wake", "join"],
        ["start", "stop", "start", "join", "start"],
    ],
    ids=" ".join,
)
def test_verbs_may_come_in_any_order_and_number(made: Callable[..., Counter], verbs: Any) -> None:
    service = made()
    for verb in verbs:
        getattr(service, verb)(*([10] if verb == "join" else []))
    assert service.join(60)
    assert service.drained <= 1
    assert service.stopping


def test_a_service_drains_once_after_its_last_round(made: Callable[..., Counter]) -> None:
    service = made()
    service.start()
    assert seen(service, 1)
    assert service.drained == 0
    service.stop()
    assert service.join(60)
    assert service.drained == 1


def test_a_stop_returns_at_once_and_join_has_a_bound(made: Callable[..., Counter]) -> None:
    service, gate = made(), threading.Event()
    service.drain = gate.wait  # type: ignore[method-assign, assignment]
    service.start()
    service.stop()
    assert not service.join(0.01)
    gate.set()
    assert service.join(60)


def test_a_service_can_stop_and_join_itself(made: Callable[..., Counter]) -> None:
    service = made()

    def tick() -> None:
        service.stop()
        assert service.join(60)

    service.tick = tick  # type: ignore[method-assign]
    service.start()
    assert service.join(60)
    assert not service.failing
