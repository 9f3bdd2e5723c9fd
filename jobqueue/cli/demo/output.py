"""How the demo tells its story: short lines, a bar on a terminal, plain progress elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from jobqueue.cli.demo.queries import command, removal
from jobqueue.cli.demo.result import Run
from jobqueue.cli.demo.tasks import LINGER
from jobqueue.cli.render import Column, console, put, table
from jobqueue.records import counted
from jobqueue.store.redact import masked

WORD = 10  # cells
STEPS = 4  # lines of progress where there is no bar


class Story:
    """Lines on a console, stdout by default, as things happen; none at all if `quiet`."""

    def __init__(self, screen: Console | None = None, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._screen = screen or console()

    def tell(self, word: str, text: str, style: str = "cyan") -> None:
        """One line: a word in the margin, and what happened."""
        if not self._quiet:
            put(self._screen, Text.assemble((f"{word:<{WORD}}", f"bold {style}"), text))

    def line(self, text: str = "", style: str = "") -> None:
        """One line by itself."""
        if not self._quiet:
            put(self._screen, Text(text, style=style))

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[], None]]:
        """Shows how many of `total` are done; gives the function to call for each."""
        if self._quiet:
            yield lambda: None
        elif self._screen.is_terminal and not self._screen.is_dumb_terminal:
            columns = [
                TextColumn(f"{'':<{WORD - 1}}"),
                BarColumn(bar_width=36),
                TextColumn("{task.completed:,.0f} of {task.total:,.0f} jobs", style="green"),
                TimeElapsedColumn(),
            ]
            with Progress(*columns, console=self._screen) as bar:
                task = bar.add_task("", total=total)
                yield lambda: bar.advance(task)
        else:
            yield self._counter(total)

    def _counter(self, total: int) -> Callable[[], None]:
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if done * STEPS // total > (done - 1) * STEPS // total:
                self.tell("", f"{100 * done // total:3} %  {done:,} of {total:,} jobs are done")

        return advance

    def end(self, run: Run) -> None:
        """The proof, the statistics, how to ask for them, and how to remove what is left."""
        if self._quiet:
            return
        self.found(run)
        self.line("Ask the database yourself:")
        for question, _ in run.answers:
            self._command(question.title, command(run.url, question))
        self.line()
        self.line("Remove what the demo has left:")
        for title, line in removal(run.url, run.queue, run.folder):
            self._command(title, line)
        self.line()

    def found(self, run: Run) -> None:
        """The proof and the statistics."""
        for text in run.proof.right:
            self.tell("ok", text, "green")
        for text in run.problems:
            self.tell("wrong", text, "red")
        self.line()
        table([*by_worker(run), _total(run)], _columns(run), self._screen)
        self.line()
        jobs = counted(run.files, "job")
        self.line(f"{jobs} in {run.worked_in:.1f} s, start of the workers included;")
        self.line(f"{run.lingering:,} of them took {LINGER:g} s on purpose.")
        self.line()

    def _command(self, title: str, line: str) -> None:
        self.line()
        self.line(f"# {title}", "dim")
        self.line(line)


def by_worker(run: Run) -> list[dict[str, Any]]:
    """A row for each worker, from the answers of the database."""
    jobs, attempts = (answer for _, answer in run.answers[:2])
    rows = {name: {"worker": name, "jobs": 0, "errored": 0, "lost": 0} for name in run.workers}
    for row in jobs:
        rows.setdefault(row["worker"], {"worker": row["worker"]})["jobs"] = row["jobs"]
    for row in attempts:
        rows.setdefault(row["worker"], {"worker": row["worker"]})[row["outcome"]] = row["attempts"]
    return list(rows.values())


def _total(run: Run) -> dict[str, Any]:
    rows = by_worker(run)
    sums = {name: sum(row.get(name, 0) for row in rows) for name in ("jobs", "errored", "lost")}
    return {"worker": "total", **sums}


def _columns(run: Run) -> list[Column[dict[str, Any]]]:
    def count(title: str, name: str) -> Column[dict[str, Any]]:
        return Column(title, lambda row: f"{row.get(name, 0):,}", right=True)

    return [
        Column("worker", lambda row: row["worker"], least=16),
        count("succeeded", "jobs"),
        count("errored", "errored"),
        count("killed", "lost"),
        Column("", lambda row: "kill -9" if row["worker"] == run.killed else "", style="red"),
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
            "worker": run.killed,
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
