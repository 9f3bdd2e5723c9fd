"""The demo's work: the SHA-256 and the number of lines of every module of the standard library."""

import hashlib
import sysconfig
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

from jobqueue.options import fixed
from jobqueue.queue import JobQueue
from jobqueue.tasks import Task
from jobqueue.worker.handler.context import current_job

TASK = "demo.digest"

STUMBLES_EVERY = 20  # One file in so many fails at the first attempt,
LINGERS_EVERY = 12  # and one in so many takes its time, as a slow disk would.
LINGER = 0.2  # seconds
BACKOFF = 0.3  # seconds

LIBRARY = Path(sysconfig.get_path("stdlib"))


@dataclass(frozen=True)
class Digest:
    """What a job finds out about a file."""

    sha256: str
    lines: int


class Stumble(Exception):
    """The failure that the demo makes on purpose."""


def modules() -> list[str]:
    """Every module of the installed standard library, as a path relative to it."""
    found = (path.relative_to(LIBRARY) for path in LIBRARY.rglob("*.py"))
    installed = {"site-packages", "dist-packages"}
    return sorted(path.as_posix() for path in found if installed.isdisjoint(path.parts))


def stumbles(module: str) -> bool:
    """Whether the first attempt at a module is made to fail; always at the same ones."""
    return _draw(module) % STUMBLES_EVERY == 0


def lingers(module: str) -> bool:
    """Whether a module takes its time."""
    return _draw(module) % LINGERS_EVERY == 1


def _draw(module: str) -> int:
    return zlib.crc32(module.encode("utf-8", "surrogateescape"))


def digest(module: str) -> Digest:
    """Hash a file and count its lines."""
    with (LIBRARY / module).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        lines = sum(1 for _ in file)
    if lingers(module):
        threading.Event().wait(LINGER)
    if stumbles(module) and current_job().attempt == 1:
        raise Stumble(f"the first attempt at {module} fails on purpose")
    return Digest(sha256, lines)


def register(jobs: JobQueue) -> Task[[str], Digest]:
    """Make `digest` a task of a queue."""
    return jobs.task(name=TASK, max_attempts=5, backoff=fixed(BACKOFF))(digest)
