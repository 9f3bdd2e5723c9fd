"""Python programs for tests that start at once: forked from a process that has imported everything, which saves each most of a
second of CPU time. Nothing else about them differs from `python -m MODULE`, `python FILE` or `python -c CODE`."""

import atexit
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PRELOADED = ("jobqueue.cli.main", "jobqueue.worker", "jobqueue.web", "alembic.command", "psycopg")
DECIDES_AT_THE_START = ("PYTHONHASHSEED", "PYTHONUNBUFFERED", "PYTHONWARNINGS", "LC_", "LANG")
MESSAGE_MAX = 1 << 20


class ProcessFactory:
    """The parent of the forked processes, itself a process."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, __file__, str(theirs.fileno())]
        self._process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()

    def start(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """Fork a process with these as its descriptors 0, 1 and 2; the last one is told its wait status. Returns its pid."""
        socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
        return int(self._socket.recv(64))

    def close(self) -> None:
        self._socket.close()
        self._process.wait(30)


@cache
def the_factory() -> ProcessFactory:
    factory = ProcessFactory()
    atexit.register(factory.close)
    return factory


class ForkedPython(subprocess.Popen[Any]):
    """A subprocess.Popen for [sys.executable, "-m", …], and for a file or "-c" in place of "-m"."""

    def _execute_child(self, args: list[str], *given: Any) -> None:
        _, _, _, _, cwd, env, _, _, _, *pipes = given[:15]
        new_session = given[19]
        child_in, _, _, child_out, _, child_err = pipes
        descriptors = [child_in, child_out, child_err]
        self._ended, told = os.pipe()
        request = {
            "arguments": list(map(os.fsdecode, args[1:])),
            "cwd": os.fspath(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "session": new_session,
        }
        own = [one if one != -1 else number for number, one in enumerate(descriptors)]
        self.pid = the_factory().start(request, [*own, told])
        self._child_created = True
        os.close(told)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        ready, _, _ = select.select([self._ended], [], [], 0 if wait_flags else None)
        if not ready:
            return 0, 0
        status = int(os.read(self._ended, 16))
        os.close(self._ended)
        return self.pid, status

    def _internal_poll(self, _deadstate: int | None = None, **_: Any) -> int | None:
        if self.returncode is None and (status := self._try_wait(os.WNOHANG))[0]:
            self._handle_exitstatus(status[1])  # type: ignore[attr-defined]
        return self.returncode


def popen(
    command: list[str], *, env: dict[str, str] | None = None, **how: Any
) -> "subprocess.Popen[Any]":
    """Start a Python program as subprocess.Popen does, forked unless its environment decides how an interpreter starts."""
    changed = {name for name, value in (env or {}).items() if os.environ.get(name) != value}
    kind = (
        subprocess.Popen
        if any(n.startswith(DECIDES_AT_THE_START) for n in changed)
        else ForkedPython
    )
    return kind(command, env=env, **how)


# The process that forks


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork a process per request; returns the request in the new process, and None once the tests have ended."""
    told: dict[int, int] = {}
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    while True:
        ready, _, _ = select.select([wake, requests], [], [])
        if wake in ready:
            os.read(wake, 4096)
        while told and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            os.write(told[pid], b"%d" % status)
            os.close(told.pop(pid))
        if requests not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_MAX, 4)
        if not message:
            return None
        if pid := os.fork():
            told[pid] = descriptors.pop()
            for descriptor in descriptors:
                os.close(descriptor)
            requests.send(b"%d" % pid)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, number)
        os.closerange(3, 1024)
        return dict(json.loads(message))


def become(request: dict[str, Any], paths: list[str]) -> None:
    """Run the program in this process, as an interpreter that was started for it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # Made for others.
        old = getattr(sys, name)
        how = {"encoding": old.encoding, "errors": old.errors, "closefd": False}
        setattr(sys, name, open(old.fileno(), mode, **how))  # noqa: SIM115
    sys.stderr.reconfigure(line_buffering=True)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if request["session"]:
        os.setsid()
    first, *rest = request["arguments"]
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if first == "-m":
        sys.argv, sys.path[:] = rest, [os.getcwd(), *given, *paths]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv, sys.path[:] = ["-c", *rest[1:]], ["", *given, *paths]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[:] = [first, *rest], [str(Path(first).parent), *given, *paths]
        runpy.run_path(first, run_name="__main__")


def main() -> None:
    import gc
    import importlib

    paths = sys.path[2:]  # Without this file's folder, and without the $PYTHONPATH given above.
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    requests = socket.socket(fileno=int(sys.argv[1]))
    request = serve(requests)
    if request is not None:
        requests.detach()  # Closed already, and its number may be another's by now.
        become(request, paths)


if __name__ == "__main__":
    main()
