"""Thumbnails of a folder of images, made in child processes, through a queue that holds 50 at most.
Run it: python examples/thumbnails.py [FOLDER of .ppm files, by default 80 that it draws itself]
(on thumbnails.db, or on the database in $JOBQUEUE_URL).
"""

import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from jobqueue import JobQueue

SIDE = 16  # pixels of a thumbnail

jobs = JobQueue(os.environ.get("JOBQUEUE_URL", "sqlite:///thumbnails.db"))
thumbs = jobs.queue("thumbs", max_pending=50)  # A producer that is too fast waits for room.


@jobs.task(queue=thumbs, isolation="process", timeout=20, max_attempts=2)
def thumbnail(path: str) -> str:
    """A child process has an interpreter of its own, and a broken image takes nothing else down."""
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


def draw(folder: Path, count: int) -> Iterator[str]:
    for number in range(count):
        path = folder / f"image-{number:02}.ppm"
        shades = (bytes((x * 4, y * 5, number * 3)) for y in range(48) for x in range(64))
        path.write_bytes(b"P6\n64 48\n255\n" + b"".join(shades))
        yield str(path)


def main(folder: Path | None) -> None:
    with tempfile.TemporaryDirectory() as drawn, jobs.worker(concurrency=2):
        paths = draw(Path(drawn), 80) if folder is None else map(str, sorted(folder.glob("*.ppm")))
        # Half a window is written at a time, so a window must fit into the queue.
        for number, name in enumerate(thumbnail.map(paths, window=50, timeout=60), start=1):
            print(f"{number:3} {name}")
    jobs.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
