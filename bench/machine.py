"""The machine, in one line: without it a figure says nothing."""

import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path

from bench.children import ROOT
from bench.ground import Ground


def sync_time(folder: Path) -> float:
    """Microseconds of one small append with a sync, the median of 100: what every commit waits for."""
    sync = getattr(os, "fdatasync", os.fsync)
    took = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            sync(file.fileno())
            took.append(time.perf_counter() - began)
    return 1e6 * statistics.median(took)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no commit"


def describe(ground: Ground) -> dict[str, str]:
    """What the figures depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = {name: metadata.version(name) for name in ("jobqueue", "sqlalchemy", "psycopg")}
    return {
        "machine": f"{cores} cores ({_processor()}), {memory:.0f} GiB, {platform.system()} {platform.release()}",
        "software": f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"PostgreSQL {ground.postgres_version or '(not used)'}, SQLAlchemy {versions['sqlalchemy']}, "
        f"psycopg {versions['psycopg']}, jobqueue {versions['jobqueue']} ({_commit()})",
        "a sync": f"{sync_time(ground.folder):.0f} µs in {ground.folder.parent}",
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }
