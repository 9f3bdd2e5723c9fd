"""The flag that a signal handler may set, whichever thread the kernel gives the signal to."""

import subprocess
import sys
import threading

import pytest

from jobqueue.worker.signal_safe_event import SignalSafeEvent

PROGRAM = """
import signal, sys, threading
from jobqueue.worker.signal_safe_event import SignalSafeEvent

flag, main = SignalSafeEvent(), threading.get_ident()

def signal_here() -> None:
    seen, pause = 0, threading.Event()
    while seen < 50:  # It stands where it waits, and not on its way there.
        pause.wait(0.001)
        frame = sys._current_frames()[main]
        seen = seen + 1 if frame.f_code.co_name == "wait" else 0
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

signal.signal(signal.SIGTERM, lambda *_: flag.set())
threading.Thread(target=signal_here, daemon=True).start()
flag.wait()
"""


def test_a_signal_that_another_thread_gets_wakes_the_main_one() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=30)


def test_a_handler_may_set_it_in_the_midst_of_a_wait() -> None:
    """As where it runs between any two instructions of it: here, all of them."""
    flag, calls = SignalSafeEvent(), 0

    def trace(frame: object, event: str, arg: object) -> object:
        nonlocal calls
        calls += 1
        flag.set()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert flag.wait(30)
    finally:
        sys.settrace(before)
    assert calls


@pytest.mark.parametrize("waiters", [1, 3])
def test_it_wakes_all_that_wait_and_stays_set(waiters: int) -> None:
    flag, answers = SignalSafeEvent(), []
    threads = [
        threading.Thread(target=lambda: answers.append(flag.wait(30))) for _ in range(waiters)
    ]
    for thread in threads:
        thread.start()
    assert not flag.is_set()
    flag.set()
    for thread in threads:
        thread.join(30)
    assert answers == [True] * waiters
    assert flag.is_set() and flag.wait() and flag.wait(0)


def test_it_waits_no_longer_than_it_is_told() -> None:
    assert SignalSafeEvent().wait(0) is False
    assert SignalSafeEvent().wait(0.01) is False
