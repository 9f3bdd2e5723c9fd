"""The bell: rings from a thread of its own, and keeps out of the way of forks."""

import os
import threading

import pytest

from jobqueue.store.notify.notifier import Bell

forking = threading.Event()
os.register_at_fork(before=forking.set)  # The last one registered runs first.


class Slow:
    """A ringer that is in the middle of a ring until a while after a fork was asked for."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.rings = 0

    def ring(self) -> None:
        self.inside.set()
        assert forking.wait(10)
        threading.Event().wait(0.05)
        self.inside.clear()
        self.rings += 1

    def close(self) -> None:
        pass

    def forget(self) -> None:
        pass


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_no_fork_takes_place_in_the_middle_of_a_ring() -> None:
    """The child would inherit what the thread has locked inside the driver, for ever."""
    ringer = Slow()
    bell = Bell(ringer)
    forking.clear()
    bell.ring()
    assert ringer.inside.wait(10)
    pid = os.fork()
    if pid == 0:
        os._exit(ringer.inside.is_set())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    bell.ring()  # It goes on in the parent.
    bell.close()
    assert ringer.rings >= 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_bell_rings_on_in_the_child() -> None:
    ringer = Slow()
    bell = Bell(ringer)
    forking.clear()
    bell.ring()
    assert ringer.inside.wait(10)
    pid = os.fork()
    if pid == 0:
        before = ringer.rings
        bell.ring()
        bell.close()
        os._exit(ringer.rings == before)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    bell.close()
