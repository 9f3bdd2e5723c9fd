"""Thumbnails of a folder of images, made in child processes, through a queue that holds 50 at most.
Run it: python examples/thumbnails.py [FOLDER of .ppm files, by default 80 that it draws itself]
(on thumbnails.db, or on the database in $JOBQUEUE_URL). The task is in thumbnail_tasks.py.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from thumbnail_tasks import jobs, thumbnail


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
