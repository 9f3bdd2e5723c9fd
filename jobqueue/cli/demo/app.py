"""The app of the demo's workers: SHA-256 and line count of each module of the standard library."""

import hashlib
import sysconfig
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

from jobqueue.options import fixed
from jobqueue.queue import JobQueue
from jobqueue.worker.handler.context import current_job

FAILS_ONCE_EVERY = 20  # One file in 20 fails at the first attempt,
SLOW_EVERY = 12  # and one in 12 takes longer, as on a slow disk.
SLOW_SECONDS = 0.2
BACKOFF_SECONDS = 0.3

LIBRARY = Path(sysconfig.get_path("stdlib"))

jobs = JobQueue("sqlite:///demo.db")
"""Never opened under this URL: the demo names its database by $JOBQUEUE_URL and `elsewhere`."""


@dataclass(frozen=True)
class Digest:
    """A job's result: what it found out about a file."""

    sha256: str
    lines: int


class FirstAttemptError(Exception):
    """The failure that the demo makes on purpose."""


def modules() -> list[str]:
    """List every module of the installed standard library, as a path relative to it."""
    found = (path.relative_to(LIBRARY) for path in LIBRARY.rglob("*.py"))
    installed = {"site-packages", "dist-packages"}
    return sorted(path.as_posix() for path in found if installed.isdisjoint(path.parts))


def fails_once(module: str) -> bool:
    """Whether the first attempt at a module fails on purpose; the same modules in every run."""
    return _checksum(module) % FAILS_ONCE_EVERY == 0


def is_slow(module: str) -> bool:
    """Whether a module's job waits on purpose."""
    return _checksum(module) % SLOW_EVERY == 1


def _checksum(module: str) -> int:
    return zlib.crc32(module.encode("utf-8", "surrogateescape"))


@jobs.task(name="demo.digest", max_attempts=5, backoff=fixed(BACKOFF_SECONDS))
def digest(module: str) -> Digest:
    """Hash a file and count its lines."""
    with (LIBRARY / module).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        lines = sum(1 for _ in file)
    if is_slow(module):
        threading.Event().wait(SLOW_SECONDS)
    if fails_once(module) and current_job().attempt == 1:
        raise FirstAttemptError(f"the first attempt at {module} fails on purpose")
    return Digest(sha256, lines)
