"""The notifier: rings from a thread of its own, and keeps out of the way of forks."""

import atexit
import os
import threading

import pytest

from jobqueue.store.notify.notifier import Notifier

forking = threading.Event()
os.register_at_fork(before=forking.set)  # The last one registered runs first.


class Slow:
    """A sender that is in the middle of a ring until a while after a fork was asked for."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.rings = 0

    def notify(self) -> None:
        self.inside.set()
        assert forking.wait(60)
        threading.Event().wait(0.05)
        self.inside.clear()
        self.rings += 1

    def close(self) -> None:
        pass

    def after_fork_in_child(self) -> None:
        pass


class Counting(Slow):
    """A sender that counts its rings."""

    def notify(self) -> None:
        self.rings += 1


def test_after_a_close_the_bell_rings_on_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_exit: list[object] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    monkeypatch.setattr(atexit, "unregister", at_exit.remove)
    sender = Counting()
    notifier = Notifier(sender)
    before = set(threading.enumerate())
    for ring in (1, 2, 3):
        notifier.notify()
        assert len(at_exit) == 1
        notifier.close()
        assert sender.rings >= ring
        assert (set(threading.enumerate()) - before, at_exit) == (set(), [])


class Unheard(Counting):
    """A sender that knows of no worker that would hear the next ring."""

    def notify(self) -> float:
        super().notify()
        sent.set()
        return 60.0


sent = threading.Event()


def test_while_nobody_would_hear_it_nothing_is_sent_until_the_close() -> None:
    sent.clear()
    sender = Unheard()
    notifier = Notifier(sender)
    notifier.notify()
    assert sent.wait(60)
    notifier.notify()
    threading.Event().wait(0.1)  # Twenty intervals of a notifier that is heard.
    assert sender.rings == 1
    notifier.close()
    assert sender.rings == 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_no_fork_takes_place_in_the_middle_of_a_ring() -> None:
    """The child would inherit what the thread has locked inside the driver, for ever."""
    sender = Slow()
    notifier = Notifier(sender)
    forking.clear()
    notifier.notify()
    assert sender.inside.wait(60)
    pid = os.fork()
    if pid == 0:
        os._exit(sender.inside.is_set())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    notifier.notify()  # It goes on in the parent.
    notifier.close()
    assert sender.rings >= 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_bell_rings_on_in_the_child() -> None:
    sender = Slow()
    notifier = Notifier(sender)
    forking.clear()
    notifier.notify()
    assert sender.inside.wait(60)
    pid = os.fork()
    if pid == 0:
        before = sender.rings
        notifier.notify()
        notifier.close()
        os._exit(sender.rings == before)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    notifier.close()
