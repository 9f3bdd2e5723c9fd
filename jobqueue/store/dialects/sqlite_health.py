"""What `doctor` asks of a SQLite file and of the library."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from sqlalchemy import Engine

from jobqueue.config import WORKER
from jobqueue.doctor_findings import Finding, finding
from jobqueue.records import format_bytes
from jobqueue.store.dialects.sqlite_file import DatabaseFile

MOUNTS = Path("/proc/self/mounts")
NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|afpfs|ceph|glusterfs|lustre|"
    r"fuse\.(sshfs|s3fs|gcsfuse|glusterfs|davfs2?)"
)
"""File systems of other machines: their locks and shared memory do not hold SQLite's promises."""
WAL_RESET_BUG = (3, 7, 0), (3, 51, 2)
"""The first and the last version with the bug: https://sqlite.org/wal.html#walresetbug"""
WAL_HELD = 64 << 20
"""A write-ahead log of more bytes that cannot be checkpointed is reported."""


def network_drive(engine: Engine, _processes: int) -> Iterator[Finding]:
    """Report a file on a network drive."""
    path = Path(engine.url.database or "").resolve()
    kind = _file_system(path)
    if kind is not None and NETWORK.fullmatch(kind):
        yield finding(
            "network_drive",
            f"{path} is on a network drive ({kind}), where SQLite's locks do not hold: the file "
            "may be damaged",
            "stop all workers, and move the file to a local disk; or use PostgreSQL",
        )


def wal_reset_bug(_engine: Engine, processes: int) -> Iterator[Finding]:
    """Tell a library that may damage a file that processes share."""
    first, last = WAL_RESET_BUG
    if processes > 1 and first <= sqlite3.sqlite_version_info <= last:
        yield finding(
            "wal_reset_bug",
            f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug, which may, rarely, damage a "
            f"file that processes share; {processes} worker processes do",
            f"use a Python with SQLite 3.51.3 or newer; or one worker process: {WORKER} -c 8",
        )


def held_snapshot(engine: Engine, _processes: int) -> Iterator[Finding]:
    """Report a log that grows because a connection reads an old snapshot."""
    log = Path(f"{engine.url.database}-wal")
    if not log.exists() or log.stat().st_size <= WAL_HELD:
        return
    file: DatabaseFile = engine.get_execution_options()["jobqueue_file"]
    taken = file.take_connection(engine)
    try:
        (size,) = taken.driver.execute("PRAGMA page_size").fetchone()
        _, pages, moved = taken.driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except BaseException:
        taken.connection.close()
        raise
    file.keep_connection(taken)
    held = (pages - moved) * size
    if held > WAL_HELD:
        yield finding(
            "held_snapshot",
            f"{format_bytes(held)} of the write-ahead log cannot be moved into the file: a program "
            "has been reading an old snapshot for long, and the log grows",
            f"find it, and end its transaction: fuser -v {quote(str(engine.url.database))}",
        )


CHECKS = (network_drive, wal_reset_bug, held_snapshot)


def _file_system(path: Path) -> str | None:
    """Return the type of the file system that a file is on; None where nobody tells."""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return None
    places = [line.split()[1:3] for line in lines]
    fits = [
        (len(where), kind)
        for where, kind in places
        if path.is_relative_to(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), where))
    ]
    return max(fits)[1] if fits else None
