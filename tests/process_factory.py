"""Python programs for tests that start at once: forked from a process that has imported everything, which saves each most of a
second of CPU time, and leave at once: without freeing all of that object by object. Nothing else about them differs from
`python -m MODULE`, `python FILE` or `python -c CODE`: they are children of the process that starts them, which gets their signals
and their exit codes from the kernel."""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import platform
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
PRELOADED = (
    *("jobqueue.cli.main", "jobqueue.worker", "jobqueue.web", "alembic.command", "psycopg"),
    *("multiprocessing.connection", "sqlalchemy.orm", "sqlalchemy.dialects.sqlite"),
    "sqlalchemy.dialects.postgresql.psycopg",
)
FINALIZES = "JOBQUEUE_TEST_FINALIZES"
"""The variable of a program, and of those that it starts, whose interpreter ends as without tests: for what happens meanwhile."""
DECIDES_AT_THE_START = ("PYTHONHASHSEED", "PYTHONUNBUFFERED", "PYTHONWARNINGS", "LC_", "LANG")
MESSAGE_MAX, DESCRIPTORS_MAX = 1 << 20, 64
START_TIMEOUT = 60.0  # seconds
CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine()) if sys.platform == "linux" else None
"""The number of the system call; None: on this machine every program starts afresh."""
CLONE_PARENT, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x8000, 0x200000, 0x1000000
PR_GET_TID_ADDRESS = 40


class ProcessFactory:
    """A child of this process that forks others, as children of this process too. May be used from any thread."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests, self._lock = requests, threading.Lock()
        requests.settimeout(START_TIMEOUT)

    def start(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """Fork a process with these as its descriptors 0, 1, 2 and those that are named. Returns its pid once it has them."""
        with self._lock:
            socket.send_fds(self._requests, [json.dumps(request).encode()], descriptors)
            return int(self._requests.recv(64))


@cache
def the_factory() -> ProcessFactory:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, __file__, str(theirs.fileno())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, cwd="/", pass_fds=[theirs.fileno()])
    theirs.close()
    atexit.register(process.wait, 30)
    atexit.register(ours.close)  # The first of the two.
    return ProcessFactory(ours)


class ForkedPython(subprocess.Popen[Any]):
    """A subprocess.Popen for [sys.executable, "-m", …], and for a file or "-c" in place of "-m"."""

    factory = staticmethod(the_factory)
    own_factory = False
    """True: the new process has a factory of its own for the workers and child processes that it starts."""

    def _execute_child(self, args: list[str], *given: Any) -> None:
        _, _, _, numbers, cwd, env, _, _, _, *pipes = given[:15]
        new_session, process_group = given[-2:]
        request = {
            "arguments": list(map(os.fsdecode, args[1:])),
            "cwd": os.fspath(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "session": new_session,
            "group": process_group,
            "mask": list(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
            "numbers": list(numbers),
            "own_factory": self.own_factory,
        }
        child_in, _, _, child_out, _, child_err = pipes
        three = [one if one != -1 else n for n, one in enumerate((child_in, child_out, child_err))]
        self.pid = self.factory().start(request, [*three, *numbers])
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


class ForkedSupervisor(ForkedPython):
    """One whose own workers and child processes are forked too."""

    own_factory = True


def popen(
    command: list[str],
    *,
    env: dict[str, str] | None = None,
    own_factory: bool = False,
    **how: Any,
) -> "subprocess.Popen[Any]":
    """Start a Python program as subprocess.Popen does, forked unless its environment decides how an interpreter starts."""
    changed = {name for name, value in (env or {}).items() if os.environ.get(name) != value}
    if CLONE is None or any(name.startswith(DECIDES_AT_THE_START) for name in changed):
        return subprocess.Popen(command, env=env, **how)
    kind = ForkedSupervisor if own_factory else ForkedPython
    return kind(command, env=env, **how)


def run(command: list[str], *, timeout: float = 100) -> "subprocess.CompletedProcess[str]":
    """Run a Python program to its end, as subprocess.run does."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with popen(command, stdin=subprocess.DEVNULL, **pipes) as process:
        try:
            told = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, *told)


def forking_subprocess() -> ModuleType:
    """The module subprocess, but its Popen forks: for a module that starts Python programs only."""
    module = ModuleType("subprocess")
    vars(module).update(vars(subprocess) | ({"Popen": ForkedPython} if CLONE else {}))
    return module


# The process that forks


def serve(requests: socket.socket) -> dict[str, Any]:
    """Fork a process per request; returns the request, in the new process. Exits once nobody can ask any more."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_MAX, DESCRIPTORS_MAX)
        if not message:
            os._exit(0)
        if fork_as_sibling() == 0:
            return begin(json.loads(message), requests, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def fork_as_sibling() -> int:
    """As os.fork(), but the new process is a child of this one's parent."""
    own_thread, python = ctypes.c_void_p(), ctypes.pythonapi
    python.prctl(PR_GET_TID_ADDRESS, ctypes.byref(own_thread), 0, 0, 0)
    flags = CLONE_PARENT | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | signal.SIGCHLD
    call = map(ctypes.c_long, (CLONE, flags, 0, 0))
    python.PyOS_BeforeFork()
    pid = int(python.syscall(*call, own_thread, own_thread))
    (python.PyOS_AfterFork_Parent if pid else python.PyOS_AfterFork_Child)()
    if pid < 0:
        raise OSError("no process could be forked")
    return pid


def begin(
    request: dict[str, Any], requests: socket.socket, descriptors: list[int]
) -> dict[str, Any]:
    """Give the new process its group, its descriptors and its signals, and tell its parent that it has them."""
    if request["session"]:
        os.setsid()
    if request["group"] >= 0:
        os.setpgid(0, request["group"])
    numbers = [0, 1, 2, *request["numbers"]]
    above = max(numbers) + 1
    asking, *moved = [
        fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, above) for one in (requests.detach(), *descriptors)
    ]
    for number, descriptor in zip(numbers, moved, strict=True):
        os.dup2(descriptor, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (asking, *numbers):
            with contextlib.suppress(OSError):  # It was listdir's own.
                os.close(int(name))
    requests = socket.socket(fileno=asking)
    if request["own_factory"]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            ours.close()
            requests.close()
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            return serve(theirs)
        theirs.close()
        use(ProcessFactory(ours))
    signal.pthread_sigmask(signal.SIG_SETMASK, request["mask"])
    requests.send(b"%d" % os.getpid())
    requests.close()
    return request


def use(factory: ProcessFactory) -> None:
    """Fork the workers and the child processes that this process starts."""
    from jobqueue.supervisor import worker_process
    from jobqueue.worker.isolate import child_handle

    ForkedPython.factory = staticmethod(lambda: factory)
    for module in (worker_process, child_handle):
        module.subprocess = forking_subprocess()


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
    first, *rest = arguments = request["arguments"]
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*given, *paths]
    if first == "-P":  # No folder of the program's own.
        first, *rest = arguments = rest
    elif first == "-m":
        sys.path.insert(0, os.getcwd())
    else:
        sys.path.insert(0, "" if first == "-c" else str(Path(first).parent))
    sys.argv = rest if first == "-m" else arguments
    if first == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        program = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(program))
    else:
        runpy.run_path(first, run_name="__main__")


def leave(codes: list[int]) -> None:
    """Exit, once all else that is done at exit is done, unless the interpreter has something to say of how it ends."""
    if not codes or FINALIZES in os.environ:
        return
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            return  # The interpreter finds that too, tells it, and changes the code.
    os._exit(codes[0] & 0xFF)


def build_statements() -> None:
    """Build what the package builds once per process and database: it is a third of what a worker computes until it works."""
    from jobqueue.store.sql.lanes import lane_statements
    from jobqueue.store.sql.paused import paused_statements
    from jobqueue.store.sql.statements import statements
    from jobqueue.store.urls import backend_of, parse

    for url in ("sqlite:///x.db", "postgresql://host/x"):  # Nobody connects to them.
        for build in (statements, lane_statements, paused_statements):
            build(backend_of(parse(url)))


def work_once() -> None:
    """Run a job on SQLite: what a worker compiles and imports for that is another third of it."""
    from statement_cache import share

    from jobqueue import JobQueue

    del sys.modules["statement_cache"]  # No program finds it there.
    share()
    folder = tempfile.TemporaryDirectory(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))
    with folder as name, JobQueue(f"sqlite:///{name}/x.db") as jobs:

        @jobs.task
        def nothing() -> None: ...

        nothing.enqueue()
        with jobs.worker(drain=True) as worker:
            worker.wait()


def main() -> None:
    paths = sys.path[2:]  # Without this file's folder, and without the $PYTHONPATH given above.
    codes: list[int] = []
    atexit.register(leave, codes)  # What is registered first is called last.
    for name in PRELOADED:
        importlib.import_module(name)
    build_statements()
    work_once()
    gc.collect()
    gc.freeze()
    try:
        become(serve(socket.socket(fileno=int(sys.argv[1]))), paths)
        codes.append(0)
    except SystemExit as ended:
        if isinstance(ended.code, int | None):
            codes.append(ended.code or 0)
        raise


if __name__ == "__main__":
    main()
