"""What a scenario is given: databases of one kind, its size, and where its figures go."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from jobqueue.store.clock import SQLITE_NOW

from bench.ground import Database, Ground

ARGS = '{"args":[1,2],"kwargs":{}}'


class Record(Protocol):
    """Takes a figure: what it is, its value, and the unit."""

    def __call__(self, what: str, value: float, unit: str) -> None: ...


@dataclass(frozen=True)
class Stage:
    """One scenario on one kind of database."""

    ground: Ground
    kind: str  # sqlite or postgres
    quick: bool
    jobs: int = 100_000
    """How many jobs wait where a backlog is what is measured: `--jobs`."""

    def count(self, full: int) -> int:
        """How many: a tenth with --quick."""
        return max(1, full // 10) if self.quick else full

    def fresh(self, *, schema: bool = True) -> AbstractContextManager[Database]:
        """A database of its own, deleted afterwards."""
        return self.ground.database(self.kind, schema=schema)


def fill(database: Database, count: int, *, finished: bool = False, queue: str = "default") -> None:
    """Rows of the task `add` by one SQL statement, waiting or finished: faster than enqueueing them."""
    names, values = ["task", "queue", "args"], ["'add'", f"'{queue}'", f"'{ARGS}'"]
    if finished:
        now = SQLITE_NOW if database.name == "sqlite" else "clock_timestamp()"
        names += ["state", "attempt", "fence", "worker", "result", "started_at", "finished_at"]
        values += ["'succeeded'", "1", "2", "'before'", "'3'", now, now]
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
    database.execute(
        f"{numbers} INSERT INTO jobqueue_jobs ({', '.join(names)}) SELECT {', '.join(values)} FROM n WHERE true"
    )
