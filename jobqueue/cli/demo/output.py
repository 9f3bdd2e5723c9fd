"""What the demo prints: a line for each event, a progress bar on a terminal, the verification."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from jobqueue.cli.demo.app import SLOW_SECONDS
from jobqueue.cli.demo.verify import Row, Run, command, without_password
from jobqueue.cli.render import Column, console, put, table
from jobqueue.records import counted
from jobqueue.store.urls import masked

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
        """Print the verification, the statistics, and commands to ask for them and to clean up."""
        self.found(run)
        self.line("Ask the database yourself:")
        for question, _ in run.answers:
            self._command(question.title, command(run.url, question))
        self.line()
        self.line("Remove what the demo has left:")
        for title, line in removal(run):
            self._command(title, line)
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

    def _command(self, title: str, line: str) -> None:
        self.line()
        self.line(f"# {title}", "dim")
        self.line(line)


COUNTS = {"succeeded": "jobs", "errored": "errored", "killed": "lost"}
"""The columns with counts: title, and name in the answers of the database."""


def by_worker(run: Run) -> list[Row]:
    """A row for each worker, from the answers of the database."""
    (_, jobs), (_, attempts), *_ = run.answers
    rows: dict[str, Row] = {
        name: {"worker": name, "jobs": 0, "errored": 0, "lost": 0} for name in run.workers
    }
    for row in [
        *jobs,
        *({"worker": row["worker"], row["outcome"]: row["attempts"]} for row in attempts),
    ]:
        rows.setdefault(row["worker"], {}).update(row)
    return list(rows.values())


def _columns(run: Run) -> list[Column[Row]]:
    def count(title: str, name: str) -> Column[Row]:
        return Column(title, lambda row: f"{row.get(name, 0):,}", right=True)

    return [
        Column("worker", lambda row: row["worker"], least=16),
        *[count(title, name) for title, name in COUNTS.items()],
        Column("", lambda row: "kill -9" if row["worker"] in run.killed else "", style="red"),
    ]


def removal(run: Run) -> list[tuple[str, str]]:
    """The shell commands that remove what the demo leaves, each with a title."""
    remove = f"rm -r {shlex.quote(str(run.folder))}"
    if run.url.get_backend_name() == "sqlite" and Path(run.url.database or "").is_relative_to(
        run.folder
    ):
        return [("the database and the logs of the workers", remove)]
    delete = f"jobqueue delete --queue {run.queue} --url {shlex.quote(without_password(run.url))}"
    return [
        ("the jobs; statistics keep their counts", delete),
        ("the logs of the workers", remove),
    ]


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
        "sql": [
            {"title": asked.title, "command": command(run.url, asked), "answer": answer}
            for asked, answer in run.answers
        ],
    }
