"""What a run of the demo did."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from jobqueue.cli.demo.queries import Question
from jobqueue.cli.demo.verify import Proof


@dataclass
class Run:
    """What a run of the demo did. Times are seconds."""

    url: URL
    queue: str
    folder: Path
    files: int = 0
    lingering: int = 0
    enqueued_in: float = 0.0
    worked_in: float = 0.0
    workers: list[str] = field(default_factory=list)
    killed: str | None = None
    killed_at: float = 0.0
    held: list[int] = field(default_factory=list)
    waiting: set[int] = field(default_factory=set)
    recovered_in: float | None = None
    exit_codes: dict[str, int] = field(default_factory=dict)
    proof: Proof = field(default_factory=Proof)
    answers: list[tuple[Question, list[dict[str, Any]]]] = field(default_factory=list)

    def note(self, ended: int) -> None:
        """A job has ended; the last of those that the killed worker held sets `recovered_in`."""
        if ended in self.waiting:
            self.waiting.discard(ended)
            if not self.waiting:
                self.recovered_in = time.monotonic() - self.killed_at

    @property
    def problems(self) -> list[str]:
        """What is not as it should be."""
        codes = self.exit_codes.items()
        bad = [
            f"NOT all stopped in order: {name} ended with {code}" for name, code in codes if code
        ]
        return self.proof.wrong + bad
