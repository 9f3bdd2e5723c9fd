"""The documentation as programs, and an environment that has only what a page says to install.

python tests/pages.py docs/quickstart.md             prints the Python of a page as one program
python tests/pages.py --needs docs/quickstart.md     prints what the page says to install
"""

import os
import re
import shlex
import sys
import venv
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Each fenced block of a language: its first line's number, and its text."""
    text = text_of(page)
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


def python_of(page: Path) -> str:
    """All Python of a page as one program, each line where it is on the page."""
    lines: list[str] = []
    for start, block in blocks(page, "python"):
        lines += [""] * (start - 1 - len(lines)) + block.splitlines()
    return "\n".join(lines) + "\n"


def named_by(page: Path) -> list[str]:
    """What a page says to install, as requirements: the words after each `$ pip install`."""
    lines = re.findall(r"^\$ pip install (.+)$", text_of(page), re.MULTILINE)
    words = [word for line in lines for word in shlex.split(line, comments=True)]
    return [re.sub(r"^\.", "jobqueue", word) for word in words]


def needed(requirements: Iterable[str]) -> Iterator[Distribution]:
    """What installing that brings along, of what is installed here; by the metadata that pip reads."""
    from packaging.requirements import Requirement

    waiting = [Requirement(text) for text in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (wanted.name.lower(), extra) in seen:
                continue
            seen.add((wanted.name.lower(), extra))
            found = distribution(wanted.name)
            if not extra:
                yield found
            for more in map(Requirement, found.requires or ()):
                if more.marker is None or more.marker.evaluate({"extra": extra}):
                    waiting.append(more)


def outside() -> dict[str, str]:
    """The variables of this process, but for those that lead to what is installed elsewhere."""
    return {name: os.environ[name] for name in os.environ.keys() - {"PYTHONPATH", "PYTHONHOME"}}


def environment(folder: Path, requirements: Iterable[str]) -> Path:
    """The Python of a virtual environment with these requirements alone.

    Nothing is downloaded: what is installed here is linked into it.
    """
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for found in needed(requirements):
        for name in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            here = packages / name
            if not here.exists():
                here.symlink_to(Path(str(found.locate_file(name))))
    return folder / "bin" / "python"


if __name__ == "__main__":
    *needs, path = sys.argv[1:]
    print(*named_by(Path(path))) if needs else sys.stdout.write(python_of(Path(path)))
