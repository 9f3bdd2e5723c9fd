"""Signals that ask to stop: which of them are a second request."""

import signal
from typing import Any

from jobqueue.os_signals import StopRequests, StopSignals
from jobqueue.supervisor.supervisor import Supervisor
from jobqueue.supervisor.worker_process import SupervisorConfig


def test_a_signal_that_arrives_twice_at_once_is_one_request_to_stop() -> None:
    """`timeout 60 jobqueue worker` sends it to the process, and then to its group."""
    calls: list[str] = []
    stop = StopSignals(lambda: calls.append("first"), lambda: calls.append("second"))
    supervisor = Supervisor(SupervisorConfig(lambda _number: (), 1, 30.0, {}))
    for _ in range(2):
        stop._count(signal.SIGTERM)
        supervisor._handle_signal(signal.SIGTERM)
    assert (calls, stop.level, supervisor._stop_level) == (["first"], 1, 1)
    stop._count(signal.SIGINT)
    supervisor._handle_signal(signal.SIGINT)
    assert (calls, stop.level, supervisor._stop_level) == (["first", "second"], 2, 2)


def test_the_same_signal_again_is_a_second_request_soon_after(wait_until: Any) -> None:
    requests = StopRequests()
    assert requests.is_new(signal.SIGTERM) and not requests.is_new(signal.SIGTERM)
    wait_until(lambda: requests.is_new(signal.SIGTERM))
