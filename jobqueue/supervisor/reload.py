"""What `worker --reload` watches: the Python files of the project's folder and of the app."""

import importlib.util
import logging
import os
from pathlib import Path

from jobqueue.optional_dependencies import required

with required("reload", "--reload needs"):
    from watchfiles import PythonFilter, watch


logging.getLogger("watchfiles").setLevel(logging.WARNING)  # The supervisor names what changed.


class _SourceFilter(PythonFilter):
    ignore_dirs = (*PythonFilter.ignore_dirs, "site-packages")


class SourceWatcher:
    """Watches the Python files below some folders, and single files."""

    def __init__(self, *roots: Path) -> None:
        self._changes = watch(
            *roots,
            watch_filter=_SourceFilter(),
            step=1,
            rust_timeout=1,
            yield_on_timeout=True,
            ignore_permission_denied=True,  # Such as a database's folder beside the sources.
        )
        next(self._changes)  # Starts watching.

    @staticmethod
    def of_app(name: str, folder: str | None = None) -> "SourceWatcher":
        """Watch the project's folder, and the package or module that the app is in.

        `folder`: that of the pyproject.toml that names the app; None: the current folder.
        """
        here = Path.cwd() if folder is None else Path(folder)
        roots = [here]
        try:
            spec = importlib.util.find_spec(name.partition(":")[0].partition(".")[0])
        except (ImportError, ValueError):
            spec = None  # The worker reports what is wrong with the app.
        if spec is not None:
            roots += map(Path, spec.submodule_search_locations or filter(None, [spec.origin]))
        outside = [root for root in roots if not root.resolve().is_relative_to(here)]
        return SourceWatcher(here, *dict.fromkeys(outside))

    def changed(self) -> str | None:
        """Return a file that was added, modified or deleted since the last call, or None."""
        changed = sorted(path for _, path in next(self._changes))
        return os.path.relpath(changed[0]) if changed else None
