"""`enqueue --from`: jobs from JSON lines, in batches that are written as a whole or not at all."""

import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from sqlalchemy.exc import SQLAlchemyError

from jobqueue.cli.context import CliContext
from jobqueue.cli.errors import FAILED, MISUSED, CliError, describe
from jobqueue.cli.tables import console
from jobqueue.errors import JobQueueError
from jobqueue.json_calls import call_of_line
from jobqueue.os_signals import STOPS, StopSignals
from jobqueue.records import counted
from jobqueue.serialization.json_values import MAX_BYTES, MAX_DEPTH, parse_json
from jobqueue.tasks import Call

BATCH = 1000
BATCH_BYTES = 16 << 20
LINE_BYTES = MAX_BYTES + (64 << 10)
"""Bytes of one line: a job's arguments and its options."""

BOM = b"\xef\xbb\xbf"


class BulkEnqueue:
    """Enqueues the lines of a file, and knows how far it has come."""

    def __init__(self, cli: CliContext) -> None:
        self._shared = cli
        self._registry = None if cli.app is None else cli.app.registry
        self._calls: list[Call[Any]] = []
        self._bytes = 0
        self._line = 0
        self._committed_line = 0
        self._stop = StopSignals(
            self._interrupt, self._interrupt_write, may_raise=True, numbers=_default_stops()
        )
        self._writing = False
        """True while a batch is written: the first signal waits, so that the outcome is known."""
        self.tasks: set[str] = set()
        """The tasks of the enqueued jobs."""
        self.ids: list[int] = []
        self.existing = 0

    def run(self, file: IO[bytes]) -> None:
        """Enqueue every line. Raises CliError with the line's number, also when interrupted."""
        try:
            total = _size(file)
            with self._stop, _progress(total) as progress:
                self._run(file, progress, progress.add_task("enqueueing", total=total, jobs="0"))
        except Interrupted:
            code = 128 + signal.Signals[self._stop.first or "SIGINT"]
            raise CliError(f"interrupted: {self._so_far()}", code=code) from None

    def _run(self, file: IO[bytes], progress: Progress, bar: TaskID) -> None:
        for line in self._lines(file):
            progress.advance(bar, len(line))
            if not line.strip():
                continue
            self._calls.append(self._read(line))
            self._bytes += len(line)
            if len(self._calls) >= BATCH or self._bytes >= BATCH_BYTES:
                self._commit()
                progress.update(bar, jobs=f"{len(self.ids):,}")
        self._commit()

    def _lines(self, file: IO[bytes]) -> Iterator[bytes]:
        while line := file.readline(LINE_BYTES + 1):
            self._line += 1
            if self._line == 1:
                line = line.removeprefix(BOM)
            if len(line) > LINE_BYTES:
                self._refuse(f"longer than {LINE_BYTES:,} bytes")
            yield line

    def _read(self, line: bytes) -> Call[Any]:
        what = f"line {self._line}"
        try:
            parsed = parse_json(
                line.rstrip(b"\r\n"), what=what, max_bytes=LINE_BYTES, max_depth=MAX_DEPTH + 2
            )
            return call_of_line(self._registry, parsed, what)
        except JobQueueError as error:
            # A path in the line, such as line 1.args[0], starts with `what`, too.
            self._refuse(str(error).removeprefix(what).lstrip(": ."), error)

    def _refuse(self, reason: str, error: JobQueueError | None = None) -> NoReturn:
        raise CliError(
            f"line {self._line}: {reason}; {self._so_far()}",
            # "2: nothing changed" is only true of the first batch.
            code=FAILED if self.ids else MISUSED,
            field=error.field if error else "line",
            value=error.value if error else None,
        ) from error

    def _so_far(self) -> str:
        if self._writing:
            before = f"lines 1 to {self._committed_line} were enqueued, and " if self.ids else ""
            return f"{before}lines {self._committed_line + 1} to {self._line} may have been"
        if not self.ids:
            return "nothing was enqueued"
        return f"lines 1 to {self._committed_line} were enqueued, nothing after them"

    def _commit(self) -> None:
        if not self._calls:
            return
        self._writing = True
        try:
            queue = self._shared.queue
            queue.store.pause = self._pause
            jobs = queue.enqueue_many(self._calls)
        except (JobQueueError, SQLAlchemyError) as error:
            self._writing = False
            failure = describe(error, self._shared)
            raise CliError(
                f"lines {self._committed_line + 1} to {self._line}: {failure.message}; "
                f"{self._so_far()}",
                code=FAILED if self.ids else failure.code,
                field=failure.field,
            ) from error
        self.ids += [job.id for job in jobs]
        self.tasks.update(call.task.name for call in self._calls)
        self.existing += sum(not job.created for job in jobs)
        self._calls, self._bytes = [], 0
        self._committed_line = self._line
        self._writing = False
        self._interrupt_if_stopped()

    def _pause(self, seconds: float) -> None:
        """Wait for room in a full queue. Nothing is being written, so a signal interrupts it."""
        self._writing = False
        self._interrupt_if_stopped()
        threading.Event().wait(seconds)
        self._writing = True

    def _interrupt_if_stopped(self) -> None:
        if self._stop.level:
            raise Interrupted

    def _interrupt(self) -> None:
        if not self._writing:
            raise Interrupted

    def _interrupt_write(self) -> None:
        if self._writing:
            raise Interrupted


class Interrupted(BaseException):
    """SIGINT or SIGTERM was received."""


def _default_stops() -> list[signal.Signals]:
    """The stop signals that are not ignored, as SIGINT is in the background of a script."""
    if threading.current_thread() is not threading.main_thread():
        return []  # Only the main thread may set handlers.
    return [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]


def _progress(total: int | None) -> Progress:
    """Return a progress bar on stderr, which shows nothing where that is not a terminal."""
    screen = console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[jobs]} jobs"),
        *([] if total is None else [TimeRemainingColumn()]),
        console=screen,
        transient=True,
        disable=not screen.is_terminal or screen.is_dumb_terminal,
    )


def _size(file: IO[bytes]) -> int | None:
    """Return the bytes of a regular file; None for a pipe, a terminal, or no file at all."""
    try:
        mode = os.fstat(file.fileno())
    except (OSError, AttributeError, ValueError):
        return None
    return mode.st_size if stat.S_ISREG(mode.st_mode) else None


def enqueue_from(cli: CliContext, name: str) -> set[str]:
    """Enqueue every line of a file, or of stdin for `-`, print how many, and return their tasks."""
    work = BulkEnqueue(cli)
    with _opened(cli, name) as file:
        work.run(file)
    new = len(work.ids) - work.existing
    held = f", {work.existing:,} already there" if work.existing else ""
    span = f": ids {min(work.ids)} to {max(work.ids)}" if work.ids else ""
    document = {"enqueued": new, "existing": work.existing, "ids": work.ids}
    cli.answer(document, f"enqueued {counted(new, 'job')}{held}{span}")
    return work.tasks


@contextmanager
def _opened(cli: CliContext, name: str) -> Iterator[IO[bytes]]:
    if name == "-":
        if sys.stdin.isatty():
            cli.note("reading JSON lines from the terminal; Ctrl-D ends them")
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - below, once it is known to be there.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CliError(
            f"--from {name}: {reason}", code=MISUSED, field="from", value=name
        ) from error
    with file:
        yield file
