"""The files that pages load: read once, served under the hash of their content."""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "static"
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HASH_LENGTH = 16


class StaticFile(NamedTuple):
    """A file as it is served."""

    content: bytes
    kind: str
    """Its Content-Type."""
    path: str
    """Below the mount, such as `static/0123456789abcdef/jobqueue.css`."""


@cache
def static_files() -> dict[str, StaticFile]:
    """Return the files by name, such as `vendor/htmx.min.js`."""
    files = {}
    for file in sorted(FOLDER.rglob("*")):
        if file.suffix in KINDS:
            content, name = file.read_bytes(), file.relative_to(FOLDER).as_posix()
            digest = hashlib.sha256(content).hexdigest()[:HASH_LENGTH]
            files[name] = StaticFile(content, KINDS[file.suffix], f"static/{digest}/{name}")
    return files
