"""What `worker --reload` watches: the Python files of the current folder and of the app.

By looking at their times, which costs little for the files of one project, needs no library, and
works where no events come from: in containers, and on folders of other hosts.
"""

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
SHARE = 10
"""A look is followed by a rest of so many times what it took."""

Seen = dict[str, tuple[int, int]]


class Sources:
    """Python files below some folders; tells which one has changed."""

    def __init__(self, roots: list[Path]) -> None:
        self._roots = roots
        self._seen = self._look()
        self._next = 0.0

    @staticmethod
    def of_app(name: str) -> "Sources":
        """The current folder, and the package or module that the app is in."""
        here = Path.cwd()
        roots = [here]
        path = sys.path
        try:
            sys.path = [str(here), *path]  # As when it is imported.
            spec = importlib.util.find_spec(name.partition(":")[0].partition(".")[0])
        except (ImportError, ValueError):
            spec = None  # The worker says what is wrong with it.
        finally:
            sys.path = path
        if spec is not None:
            roots += map(Path, spec.submodule_search_locations or filter(None, [spec.origin]))
        outside = [root.resolve() for root in roots if not root.resolve().is_relative_to(here)]
        return Sources([here, *dict.fromkeys(outside)])

    def changed(self) -> str | None:
        """A file that is new, gone or other than at the last look; None if there is none."""
        if time.monotonic() < self._next:
            return None
        began = time.monotonic()
        before, self._seen = self._seen, self._look()
        present = time.monotonic()
        self._next = present + SHARE * (present - began)
        if before == self._seen:
            return None
        changes = sorted(path for path, _ in before.items() ^ self._seen.items())
        return os.path.relpath(changes[0])

    def _look(self) -> Seen:
        seen: Seen = {}
        for root in self._roots:
            for path in _python_files(root):
                with contextlib.suppress(OSError):
                    status = path.stat()
                    seen[str(path)] = (status.st_mtime_ns, status.st_size)
        return seen


def _python_files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if _is_ours(Path(folder, name))]
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


def _is_ours(folder: Path) -> bool:
    """False for hidden folders, caches, and what others have installed."""
    if folder.name.startswith(".") or folder.name in SKIPPED:
        return False
    return not (folder / "pyvenv.cfg").exists()
