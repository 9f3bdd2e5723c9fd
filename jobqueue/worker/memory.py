"""The memory guard: ends a worker in order when it has grown too large."""

import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from jobqueue.errors import InvalidOption
from jobqueue.loggers import get_logger
from jobqueue.worker.service import Service

log = get_logger("jobqueue.worker")

LOOK = 1.0  # seconds
LEAST = 10_000_000  # bytes; no Python runs in less
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)\s*(k|m|g|t|ki|mi|gi|ti)?b?", re.IGNORECASE | re.ASCII)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


class MemoryGuard(Service):
    """Looks every second at how much memory this process has."""

    def __init__(self, bound: int, outgrown: Callable[[str], None]) -> None:
        super().__init__("memory")
        self._bound = bound
        self._outgrown = outgrown

    def tick(self) -> float | None:
        """Look; beyond the bound, say so and be done."""
        present = resident()
        if present <= self._bound:
            return LOOK
        self._outgrown(
            f"it has {present / 1e6:,.0f} MB of memory, more than {self._bound / 1e6:,.0f} MB"
        )
        return None


def resident() -> int:
    """Bytes of memory that this process has now; where nobody says, the most that it has had."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def size(value: object) -> int:
    """A number of bytes, from such a number or text like `500MB`, `1.5GB`, `512MiB`."""
    count: float | None = None
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        unit = (match[2] or "").lower()
        power = _POWERS.get(unit[:1], 0)
        count = float(match[1]) * (1024 if unit.endswith("i") else 1000) ** power
    elif isinstance(value, int) and not isinstance(value, bool):
        count = value
    if count is None or not LEAST <= count < 2**63:
        raise InvalidOption(
            f"max_memory: {str(value)[:40]!r} is not a size of at least 10 MB; "
            "write 500MB, 1.5GB or 512MiB",
            field="max_memory",
            value=value,
        )
    return int(count)
