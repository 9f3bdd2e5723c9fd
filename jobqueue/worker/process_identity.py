"""The identity of a worker: a process on a host, distinct from a later one with the same id."""

import os
import socket
import sys
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from jobqueue.records import Lease


class Identity(NamedTuple):
    """This process as its workers' rows describe it."""

    host: str
    pid: int
    boot_id: str | None
    pid_namespace: str | None
    process_started: float | None


boottime: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic
)
"""Seconds on a clock that no one steps and that counts a suspended machine's sleep too."""


def this_process() -> Identity:
    """The identity of this process."""
    return Identity(
        host=socket.gethostname(),
        pid=os.getpid(),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(os.getpid()),
        process_started=process_started(os.getpid()),
    )


def is_gone(lease: Lease, me: Identity) -> bool:
    """True if the lease's process has certainly exited. A stopped process has not.

    Only a process of this very boot and process namespace can be judged.
    """
    comparable = (
        lease.boot_id is not None
        and lease.process_started is not None
        and (lease.boot_id, lease.pid_namespace) == (me.boot_id, me.pid_namespace)
        and process_started(1) is not None  # Else other users' processes are hidden (hidepid).
    )
    return comparable and process_started(lease.pid) != lease.process_started


def process_started(pid: int) -> float | None:
    """When a process began, in clock ticks since boot; None if there is none or nobody can tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":  # Dead, and only its parent has not noticed.
        return None
    return float(fields[19])


def peak_memory(pid: int | None = None) -> int | None:
    """The most memory that a process (this one) has used, in bytes; None if nobody can tell."""
    try:
        status = Path(f"/proc/{'self' if pid is None else pid}/status").read_text()
    except OSError:
        return None
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(sizes[0]) * 1024 if sizes else None


@lru_cache
def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _pid_namespace(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink().name
    except OSError:
        return None
