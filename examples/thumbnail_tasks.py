"""The task of thumbnails.py: a child process imports it by this name."""

import os
import struct
import zlib
from pathlib import Path

from jobqueue import JobQueue

SIDE = 16  # pixels of a thumbnail

jobs = JobQueue(os.environ.get("JOBQUEUE_URL", "sqlite:///thumbnails.db"))
thumbs = jobs.queue("thumbs", max_pending=50)  # A producer that is too fast waits for room.


@jobs.task(queue=thumbs, isolation="process", timeout=20, max_attempts=2)
def thumbnail(path: str) -> str:
    """Run in a child process: a crash on a broken image affects no other job."""
    width, height, pixels = read_ppm(Path(path))
    rows = []
    for y in range(SIDE):
        line = y * height // SIDE * width
        starts = (3 * (line + x * width // SIDE) for x in range(SIDE))
        rows.append(b"".join(pixels[start : start + 3] for start in starts))
    target = Path(path).with_suffix(".thumb.png")
    write_png(target, SIDE, rows)
    return target.name


def read_ppm(path: Path) -> tuple[int, int, bytes]:
    kind, width, height, _most, pixels = path.read_bytes().split(maxsplit=4)
    if kind != b"P6":
        raise ValueError(f"{path.name} is not a binary PPM image")
    return int(width), int(height), pixels


def write_png(path: Path, width: int, rows: list[bytes]) -> None:
    header = struct.pack(">IIBBBBB", width, len(rows), 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = b""
    for chunk in (b"IHDR" + header, b"IDAT" + data, b"IEND"):
        chunks += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
