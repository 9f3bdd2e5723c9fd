"""What the demo prints: a line for each event, a progress bar on a terminal, the verification."""

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from jobqueue.cli.demo.app import SLOW_SECONDS
from jobqueue.cli.demo.verify import Row, Run
from jobqueue.cli.tables import Column, console, put, table
from jobqueue.records import counted
from jobqueue.store.urls import as_text, masked

MARGIN = 10  # cells of the word that begins a line
PROGRESS_LINES = 4  # where there is no bar


class Narration:
    """Prints events on a console, stdout by default, as they happen; nothing on a quiet one."""

    def __init__(self, screen: Console | None = None) -> None:
        self._screen = screen or console()

    def tell(self, word: str, text: str, style: str = "cyan") -> None:
        """Print one line: a word in the margin, and what happened."""
        put(self._screen, Text.assemble((f"{word:<{MARGIN}}", f"bold {style}"), text))

    def line(self, text: str = "", style: str = "") -> None:
        """Print one line by itself."""
        put(self._screen, Text(text, style=style))

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[], None]]:
        """Show how many of `total` jobs are done; yields the function to call for each."""
        if not self._screen.is_terminal or self._screen.is_dumb_terminal:
            yield self._counter(total)
            return
        columns = [
            TextColumn(f"{'':<{MARGIN - 1}}"),
            BarColumn(bar_width=36),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} jobs", style="green"),
            TimeElapsedColumn(),
        ]
        with Progress(*columns, console=self._screen) as bar:
            task = bar.add_task("", total=total)
            yield lambda: bar.advance(task)

    def _counter(self, total: int) -> Callable[[], None]:
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if done * PROGRESS_LINES // total > (done - 1) * PROGRESS_LINES // total:
                self.tell("", f"{100 * done // total:3} %  {done:,} of {total:,} jobs are done")

        return advance

    def end(self, run: Run) -> None:
        """Print the verification, the statistics, and commands to see the jobs and to clean up."""
        self.found(run)
        for title, line in commands(run):
            self.line(f"# {title}", "dim")
            self.line(line)
            self.line()

    def found(self, run: Run) -> None:
        """Print the verification and the statistics."""
        for text in run.proof.right:
            self.tell("ok", text, "green")
        for text in run.problems:
            self.tell("wrong", text, "red")
        self.line()
        rows = by_worker(run)
        sums = {name: sum(row.get(name, 0) for row in rows) for name in COUNTS.values()}
        table([*rows, {"worker": "total", **sums}], _columns(run), self._screen)
        self.line()
        jobs = counted(run.files, "job")
        self.line(f"{jobs} in {run.worked_in:.1f} s, start of the workers included;")
        self.line(f"{run.slow:,} of them took {SLOW_SECONDS:g} s on purpose.")
        self.line()


COUNTS = {"succeeded": "jobs", "errored": "errored", "killed": "lost"}
"""The columns with counts: title, and name in `Proof.workers`."""


def by_worker(run: Run) -> list[Row]:
    """A row for each worker."""
    return [
        {"worker": name, **{key: run.proof.workers[name][key] for key in COUNTS.values()}}
        for name in dict.fromkeys([*run.workers, *run.proof.workers])
    ]


def _columns(run: Run) -> list[Column[Row]]:
    def count(title: str, name: str) -> Column[Row]:
        return Column(title, lambda row: f"{row.get(name, 0):,}", right=True)

    return [
        Column("worker", lambda row: row["worker"], least=16),
        *[count(title, name) for title, name in COUNTS.items()],
        Column("", lambda row: "kill -9" if row["worker"] in run.killed else "", style="red"),
    ]


def commands(run: Run) -> list[tuple[str, str]]:
    """The shell commands that show and remove what the demo leaves, each with a title."""
    # libpq finds a password in $PGPASSWORD or ~/.pgpass.
    passwords = [key for key in run.url.query if "password" in key]
    url = run.url._replace(password=None).difference_update_query(passwords)
    program = _program()
    of_queue = f"--queue {run.queue} --url {shlex.quote(as_text(url))}"
    listed = ("See the jobs:", f"{program} list {of_queue}")
    remove = f"rm -r {shlex.quote(str(run.folder))}"
    file = Path(run.url.database or "")
    if run.url.get_backend_name() == "sqlite" and file.is_relative_to(run.folder):
        return [listed, ("Remove the database and the logs of the workers:", remove)]
    return [
        listed,
        ("Delete the jobs; statistics keep their counts:", f"{program} delete {of_queue}"),
        ("Remove the logs of the workers:", remove),
    ]


def _program() -> str:
    """Return what a shell calls this program by: its path, where it does not find its name."""
    called, found = Path(sys.argv[0]), shutil.which("jobqueue")
    by_name = called.name != "jobqueue" or (found is not None and called.samefile(found))
    return "jobqueue" if by_name else shlex.quote(sys.argv[0])


def to_json(run: Run) -> dict[str, Any]:
    """All of it as one document. Times are seconds."""
    return {
        "ok": not run.problems,
        "database": masked(run.url),
        "queue": run.queue,
        "files": run.files,
        "lines": run.proof.lines,
        "enqueued_in": run.enqueued_in,
        "worked_in": run.worked_in,
        "workers": by_worker(run),
        "killed": {
            "worker": run.killed[-1] if run.killed else None,
            "held": run.held,
            "recovered_in": run.recovered_in,
        },
        "accepted_results": run.proof.accepted,
        "attempts": {"charged": run.proof.attempts, **run.proof.outcomes},
        "proof": run.proof.right,
        "problems": run.problems,
    }
