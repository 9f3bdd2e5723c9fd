"""`enqueue --from` that is interrupted: it says how far it came."""

import signal
import threading
from collections.abc import Callable
from typing import IO, Any

import pytest

from jobqueue import JobQueue
from tests.cli.conftest import Cli, Process

LINE = '{"task": "a"}\n'
INTERRUPTS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("number", "code"), INTERRUPTS)
def test_an_interrupted_import_says_how_many_lines_are_there(
    bare: Cli,
    url: str,
    spawn: Callable[..., Process],
    wait_until: Callable[..., Any],
    number: int,
    code: int,
) -> None:
    process = spawn("--url", url, "enqueue", "--from", "-", stdin=-1)
    feed(process).write(LINE * 1500)
    feed(process).flush()
    wait_until(lambda: count(bare) == 1000)  # And now it waits for more lines.
    process.popen.send_signal(number)
    said = "error: interrupted: lines 1 to 1000 were enqueued, nothing after them\n"
    assert process.popen.wait(60) == code
    assert process.popen.stderr is not None
    assert process.popen.stderr.read() == said
    assert count(bare) == 1000


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_batch_is_written_waits_for_its_end(
    bare: Cli, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write = JobQueue.enqueue_many

    def interrupted(self: JobQueue, calls: Any) -> Any:
        signal.raise_signal(number)
        return write(self, calls)

    before = signal.getsignal(number)
    monkeypatch.setattr(JobQueue, "enqueue_many", interrupted)
    result = bare("enqueue", "--from", "-", input=LINE * 1500)
    said = "error: interrupted: lines 1 to 1000 were enqueued, nothing after them\n"
    assert (result.exit_code, result.stderr) == (dict(INTERRUPTS)[number], said)
    assert count(bare) == 1000
    assert signal.getsignal(number) is before


@pytest.mark.databases("sqlite")
def test_a_second_signal_does_not_wait_and_the_message_says_what_is_not_known(
    bare: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = JobQueue.enqueue_many
    batches: list[int] = []

    def interrupted(self: JobQueue, calls: Any) -> Any:
        batches.append(len(calls))
        if len(batches) == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        return write(self, calls)

    monkeypatch.setattr(JobQueue, "enqueue_many", interrupted)
    result = bare("enqueue", "--from", "-", input=LINE * 1500)
    assert (result.exit_code, result.stderr) == (
        130,
        "error: interrupted: lines 1 to 1000 were enqueued, and lines 1001 to 1500 may have been\n",
    )


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_an_import_that_waits_for_room_in_a_full_queue_can_be_interrupted(
    bare: Cli, url: str, monkeypatch: pytest.MonkeyPatch, number: int, when: str
) -> None:
    with JobQueue(url) as jobs:
        full = jobs.queue("full", max_pending=1)

        @jobs.task(queue=full)
        def a() -> None: ...

        a.enqueue()
    write, wait = JobQueue.enqueue_many, threading.Event.wait

    def enqueue_many(self: JobQueue, calls: Any) -> Any:
        if when == "before":
            signal.raise_signal(number)
        patched.setattr(threading.Event, "wait", waits)
        return write(self, calls)

    def waits(event: threading.Event, timeout: float | None = None) -> bool:
        if when == "meanwhile" and threading.current_thread() is threading.main_thread():
            signal.raise_signal(number)
        return wait(event, timeout)

    with monkeypatch.context() as patched:
        patched.setattr(JobQueue, "enqueue_many", enqueue_many)
        result = bare("enqueue", "--from", "-", input='{"task": "a", "queue": "full"}\n')
    said = "error: interrupted: nothing was enqueued\n"
    assert (result.exit_code, result.stderr) == (dict(INTERRUPTS)[number], said)
    assert count(bare) == 1


@pytest.mark.databases("sqlite")
def test_an_import_that_is_interrupted_at_once_has_enqueued_nothing(
    bare: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("jobqueue.cli.commands.bulk.parse_json", interrupted)
    result = bare("enqueue", "--from", "-", input=LINE)
    assert (result.exit_code, result.stderr) == (130, "error: interrupted: nothing was enqueued\n")


def count(bare: Cli) -> int:
    return len(bare.json("list", "--limit", 0))


def feed(process: Process) -> IO[str]:
    assert process.popen.stdin is not None
    return process.popen.stdin
