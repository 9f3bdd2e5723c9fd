"""Wake-ups: what a worker's listener hears of rings and of other people's commits."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from pooler import Pooler
from sqlalchemy import make_url, text

from jobqueue.store.jobs import Jobs
from jobqueue.store.notify import notifier as notifier_module
from jobqueue.store.notify import postgres
from jobqueue.store.notify.notifier import NotificationSender, Notifier, Subscription, Wakeup
from jobqueue.store.database import Store
from tests.store.conftest import StoreKit

RINGS = 20
LONG = 60.0  # seconds; no test waits for so long unless it fails


@pytest.fixture
def listener(store: Store, kit: StoreKit) -> Iterator[Subscription]:
    """A listener that rings find, and that has heard of all that is there already."""
    store.require_schema()
    listener = store.backend.subscription(store.url)
    kit.worker(wakeup_address=listener.address)
    listener.wait(0.1)
    yield listener
    listener.close()


@pytest.fixture
def sender(store: Store) -> Iterator[NotificationSender]:
    sender = store.backend.notification_sender(store.engine)
    yield sender
    sender.close()


def falls_silent(listener: Subscription) -> bool:
    """Whether it hears nothing at last. Rings of the tests before may still be on their way, but not many."""
    return any(listener.wait(0.1) is Wakeup.NOTHING for _ in range(RINGS))


def test_a_ring_is_heard_as_one(listener: Subscription, sender: NotificationSender) -> None:
    for _ in range(3):
        sender.notify()
        assert listener.wait(LONG) is Wakeup.NOTIFIED


def test_a_forked_child_closes_its_copy_of_the_senders_socket(
    listener: Subscription, sender: NotificationSender, recwarn: pytest.WarningsRecorder
) -> None:
    sender.notify()
    sender.after_fork_in_child()
    assert [str(warning.message) for warning in recwarn] == []
    assert listener.wait(LONG) is Wakeup.NOTIFIED
    sender.notify()
    assert listener.wait(LONG) is Wakeup.NOTIFIED


@pytest.mark.databases("sqlite")
def test_a_sender_knows_how_long_nobody_hears_it(store: Store, kit: StoreKit) -> None:
    store.require_schema()
    unheard, heard = (store.backend.notification_sender(store.engine) for _ in range(2))
    assert unheard.notify()
    kit.worker(wakeup_address="jobqueue-nowhere")
    assert heard.notify() is None
    unheard.close()
    heard.close()


def test_many_rings_are_heard_and_then_no_more(
    listener: Subscription, sender: NotificationSender
) -> None:
    for _ in range(RINGS):
        sender.notify()
    assert listener.wait(LONG) is Wakeup.NOTIFIED
    heard = 1
    while heard <= RINGS and listener.wait(0.1) is Wakeup.NOTIFIED:
        heard += 1
    assert heard <= RINGS


def test_silence_is_heard_as_nothing(listener: Subscription) -> None:
    assert falls_silent(listener)
    assert listener.wait(0.0) is not Wakeup.COMMIT


def test_a_wait_ends_at_once_when_its_worker_stops(listener: Subscription) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(listener.wait, LONG)
        listener.wake()
        assert waiting.result(LONG / 2) is not Wakeup.COMMIT


@pytest.mark.databases("sqlite")
def test_a_commit_that_nobody_rings_for_is_heard_as_a_change(
    listener: Subscription, kit: StoreKit
) -> None:
    assert falls_silent(listener)
    kit.add()
    assert listener.wait(LONG) is Wakeup.COMMIT


@pytest.mark.databases("postgres")
def test_what_was_missed_while_there_was_no_connection_is_a_change(
    store: Store, listener: Subscription, disconnect: Callable[[], None]
) -> None:
    disconnect()
    with pytest.raises(Exception, match="connection|terminat"):
        listener.wait(LONG)
    assert listener.wait(LONG) is Wakeup.COMMIT


@pytest.mark.databases("postgres")
def test_a_ring_is_sent_although_its_connection_was_lost_meanwhile(
    store: Store, listener: Subscription, sender: NotificationSender, disconnect: Callable[[], None]
) -> None:
    sender.notify()
    disconnect()
    with pytest.raises(Exception, match="connection|terminat"):
        while listener.wait(LONG) is Wakeup.NOTIFIED:
            pass
    listener.wait(LONG)
    sender.notify()
    assert listener.wait(LONG) is Wakeup.NOTIFIED


@pytest.fixture
def disconnect(store: Store) -> Callable[[], None]:
    """A function that ends every other connection to the database, and waits until it has."""

    def disconnect() -> None:
        with store.write() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

    return disconnect


@pytest.fixture
def through_pooler(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A function that makes a listener whose connections go by way of a pooler of a kind."""
    monkeypatch.setattr(postgres, "PROOF_SECONDS", 1.0)
    store.require_schema()
    with ExitStack() as stack:

        def make(**kind: Any) -> Subscription:
            pooler = stack.enter_context(Pooler(store.url.render_as_string(False), **kind))
            listener = store.backend.subscription(make_url(pooler.url))
            stack.callback(listener.close)
            return listener

        yield make


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "pooler" in record.message]


@pytest.mark.databases("postgres")
def test_a_listener_behind_a_pooler_in_transaction_mode_says_once_that_it_hears_nothing(
    through_pooler: Callable[..., Any],
    wait_until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener = through_pooler()
    assert listener.wait(0.01) is Wakeup.COMMIT
    wait_until(lambda: listener.wait(0.05) is Wakeup.NOTHING and listener.must_poll)
    for _ in range(3):
        assert listener.wait(0.01) is Wakeup.NOTHING
    (said,) = warnings(caplog)
    assert "docs/poolers.md" in said


@pytest.mark.databases("postgres")
def test_a_listener_behind_a_pooler_in_session_mode_hears(
    through_pooler: Callable[..., Any],
    sender: NotificationSender,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(postgres, "PROOF_SECONDS", LONG)
    listener = through_pooler(session=True)
    assert listener.wait(0.01) is Wakeup.COMMIT
    assert listener.wait(LONG) is Wakeup.COMMIT  # Its own.
    sender.notify()
    assert listener.wait(LONG) is Wakeup.NOTIFIED
    assert not listener.must_poll and not warnings(caplog)


@pytest.mark.databases("postgres")
def test_a_listener_whose_first_connection_broke_half_way_listens_on_the_next(
    store: Store, sender: NotificationSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is there and does not listen would be silent for ever."""

    def refuse(_: object) -> bool:
        raise ConnectionError("the pooler has lost its server")

    store.require_schema()
    listener = store.backend.subscription(store.url)
    monkeypatch.setattr(postgres.session, "is_direct", refuse)
    with pytest.raises(ConnectionError):
        listener.wait(LONG)
    monkeypatch.undo()
    assert listener.wait(LONG) is Wakeup.COMMIT
    sender.notify()
    assert listener.wait(LONG) is Wakeup.NOTIFIED
    listener.close()


class MuteSender:
    """Counts what it is to send, and sends nothing."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def notify(self) -> None:
        self.asked.set()

    def close(self) -> None: ...

    def forget(self) -> None: ...


@pytest.fixture
def mute() -> Iterator[MuteSender]:
    yield MuteSender()


@pytest.fixture
def notifier(mute: MuteSender) -> Iterator[Notifier]:
    notifier = Notifier(mute)
    yield notifier
    notifier.close()


@pytest.mark.databases("postgres")
def test_an_enqueue_after_a_pause_carries_its_notification_and_the_next_one_does_not(
    listener: Subscription, store: Store, kit: StoreKit, notifier: Notifier, mute: MuteSender
) -> None:
    jobs = Jobs(store)
    jobs.insert([kit.new()], notifier=notifier)
    assert listener.wait(LONG) is Wakeup.NOTIFIED
    assert not mute.asked.is_set()
    jobs.insert([kit.new()], notifier=notifier)
    assert mute.asked.wait(LONG)


@pytest.mark.parametrize("calls", [1, 2])
def test_an_enqueue_that_carries_no_notification_asks_for_one(
    store: Store,
    kit: StoreKit,
    notifier: Notifier,
    mute: MuteSender,
    calls: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifier_module, "QUIET_AFTER", LONG)
    notifier.is_quiet()  # A moment ago another job was enqueued.
    Jobs(store).insert([kit.new() for _ in range(calls)], notifier=notifier)
    assert mute.asked.wait(LONG)


def test_after_a_slow_commit_enqueues_carry_no_notification_for_a_while(
    notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier_module, "QUIET_AFTER", 0.0)
    assert notifier.is_quiet()
    notifier.was_carried(notifier_module.SLOW_COMMIT / 2)
    assert notifier.is_quiet()
    notifier.was_carried(notifier_module.SLOW_COMMIT)
    assert not notifier.is_quiet()
