"""`enqueue --from`: many jobs from JSON lines, a batch at a time, each of them all or nothing."""

import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn, Self

from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from sqlalchemy.exc import SQLAlchemyError

from jobqueue.cli.context import Shared
from jobqueue.cli.errors import FAILED, INTERRUPTED, MISUSED, Problem, describe
from jobqueue.cli.render import console
from jobqueue.cli.streams import echo
from jobqueue.errors import JobQueueError
from jobqueue.records import counted
from jobqueue.serialization.json_values import MAX_BYTES, MAX_DEPTH, parse_json
from jobqueue.tasks import Call
from jobqueue.wire import Tasks, call_of_line

BATCH = 1000
BATCH_BYTES = 16 << 20
LINE_BYTES = MAX_BYTES + (64 << 10)
"""A job's arguments and its options."""

BOM = b"\xef\xbb\xbf"


class Import:
    """One run over a file, and how far it has come."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._tasks = Tasks(None if shared.app is None else shared.app.registry)
        self._calls: list[Call[Any]] = []
        self._bytes = 0
        self._line = 0
        self._committed_line = 0
        self._signals = Signals()
        self._writing = False
        self.tasks: set[str] = set()
        """The names in what was enqueued."""
        self.ids: list[int] = []
        self.existing = 0

    def run(self, file: IO[bytes], progress: "Meter") -> None:
        """Enqueue every line. Raises Problem with the line's number, interrupted or not."""
        try:
            with self._signals:
                self._run(file, progress)
        except Interrupted as signal_:
            raise Problem(f"interrupted: {self._so_far()}", code=signal_.code) from None

    def _run(self, file: IO[bytes], progress: "Meter") -> None:
        for line in self._lines(file):
            progress.advance(len(line))
            if not line.strip():
                continue
            self._calls.append(self._read(line))
            self._bytes += len(line)
            if len(self._calls) >= BATCH or self._bytes >= BATCH_BYTES:
                self._commit()
                progress.count(len(self.ids))
        self._commit()
        progress.count(len(self.ids))

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
            return call_of_line(self._tasks, parsed, what)
        except JobQueueError as error:
            # A path within the line, such as line 1.args[0], begins with its name as well.
            self._refuse(str(error).removeprefix(what).lstrip(": ."), error)

    def _refuse(self, reason: str, error: JobQueueError | None = None) -> NoReturn:
        raise Problem(
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
        with self._signals.put_off():
            self._write()

    def _write(self) -> None:
        self._writing = True
        try:
            queue = self._shared.queue
            queue.store.pause = self._pause
            jobs = queue.enqueue_many(self._calls)
        except (JobQueueError, SQLAlchemyError) as error:
            self._writing = False
            failure = describe(error, self._shared)
            raise Problem(
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

    def _pause(self, seconds: float) -> None:
        """Wait for room in a full queue: it may take for ever, and nothing is being written."""
        self._writing = False
        with self._signals.let_in():
            threading.Event().wait(seconds)
        self._writing = True


class Interrupted(BaseException):
    """SIGINT or SIGTERM came."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = INTERRUPTED if number == signal.SIGINT else 128 + number


class Signals:
    """Raises Interrupted for SIGINT and SIGTERM; while a batch is written, not for the first."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._put_off = False
        self._came: int | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Others may set no handler.
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:  # As in the background of a script, or by nohup.
                    self._before[number] = before or signal.SIG_DFL
                    signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Let what is in here end first: nobody could say whether it was done."""
        self._put_off = True
        yield
        self._hear()

    @contextmanager
    def let_in(self) -> Iterator[None]:
        """Within `put_off`: do not wait for its end."""
        self._hear()
        yield
        self._put_off = True

    def _hear(self) -> None:
        self._put_off = False
        if self._came is not None:
            raise Interrupted(self._came)

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if self._put_off and self._came is None:
            self._came = number
        else:
            raise Interrupted(number)


class Meter:
    """A progress bar on stderr, where that is a terminal; elsewhere nothing."""

    def __init__(self, total: int | None) -> None:
        screen = console(stderr=True)
        count = TextColumn("{task.fields[jobs]} jobs")
        columns: list[ProgressColumn] = [BarColumn(), count]
        if total is not None:
            columns.append(TimeRemainingColumn())
        self._progress = Progress(
            TextColumn("enqueueing"),
            *columns,
            console=screen,
            transient=True,
            disable=not screen.is_terminal or screen.is_dumb_terminal,
        )
        self._task = self._progress.add_task("enqueueing", total=total, jobs=0)

    def advance(self, amount: int) -> None:
        """So many bytes were read."""
        self._progress.advance(self._task, amount)

    def count(self, jobs: int) -> None:
        """So many jobs are in the database."""
        self._progress.update(self._task, jobs=f"{jobs:,}")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def enqueue_from(shared: Shared, name: str) -> set[str]:
    """Enqueue every line of a file, or of stdin for `-`, print how many, and return their tasks."""
    work = Import(shared)
    with _opened(shared, name) as file:
        mode = os.fstat(file.fileno()) if _has_descriptor(file) else None
        total = mode.st_size if mode is not None and stat.S_ISREG(mode.st_mode) else None
        with Meter(total) as meter:
            work.run(file, meter)
    new = len(work.ids) - work.existing
    if shared.json:
        answer = {"enqueued": new, "existing": work.existing, "ids": work.ids}
        shared.print_json(answer)
        return work.tasks
    held = f", {work.existing:,} already there" if work.existing else ""
    span = f": ids {min(work.ids)} to {max(work.ids)}" if work.ids else ""
    echo(f"enqueued {counted(new, 'job')}{held}{span}")
    return work.tasks


@contextmanager
def _opened(shared: Shared, name: str) -> Iterator[IO[bytes]]:
    if name == "-":
        if sys.stdin.isatty():
            shared.note("reading JSON lines from the terminal; Ctrl-D ends them")
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - below, once it is known to be there.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Problem(f"--from {name}: {reason}", code=MISUSED, field="from", value=name) from error
    with file:
        yield file


def _has_descriptor(file: IO[bytes]) -> bool:
    try:
        file.fileno()
    except (OSError, AttributeError, ValueError):
        return False
    return True
