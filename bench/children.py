"""Processes that measure: a clean interpreter each, which speaks JSON lines and never outlives the bench.

A child ends when its standard input does, and the kernel closes that however the parent ends. Only the standard library is used here,
because peers run it in an environment of their own.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn, Self

ROOT = Path(__file__).resolve().parent.parent


class ChildFailed(Exception):
    """A child ended, or was silent for too long, before it had answered."""


class Child:
    """The parent's side. A context manager: leaving it ends the child."""

    def __init__(self, module: str, *arguments: object, python: str = sys.executable) -> None:
        self._name = " ".join([module, *map(str, arguments)])[:200]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("JOBQUEUE_", "PG"))
        }
        self._process = subprocess.Popen(
            [python, "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the bench, which then ends its children in order.
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line)
        self._lines.put(None)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def tell(self, word: str) -> None:
        """Say a line to the child."""
        assert self._process.stdin is not None
        try:
            print(word, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise ChildFailed(f"{self._name} has ended") from None

    def hear(self, kind: str, timeout: float = 300) -> dict[str, Any]:
        """Its next line, which must be of this kind."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise ChildFailed(f"{self._name} has not said {kind!r} for {timeout:g} s") from None
        if line is None:
            raise ChildFailed(
                f"{self._name} ended with {self._process.wait()} instead of saying {kind!r}"
            )
        said = json.loads(line)
        if said["kind"] != kind:
            raise ChildFailed(f"{self._name} said {said} instead of {kind!r}")
        return said

    def ask(self, word: str, timeout: float = 60) -> dict[str, Any]:
        """Say a word and hear the answer, which is of that kind."""
        self.tell(word)
        return self.hear(word, timeout)

    def end(self, patience: float = 20) -> None:
        """Close its standard input and wait; kill it if it stays."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            print(
                f"bench: {self._name} did not end within {patience:g} s and was killed",
                file=sys.stderr,
            )
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


# The child's side


def say(kind: str, **fields: object) -> None:
    """Answer the parent."""
    print(json.dumps({"kind": kind, **fields}), flush=True)


def end_with_parent() -> None:
    """For a child that does not read its standard input any more: end when that ends."""

    def watch() -> NoReturn:
        while os.read(0, 1):  # Not sys.stdin, whose lock the interpreter wants when it ends.
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
