"""What tests fork is to each of them as a program that Python was started for."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from typing import Any

import pytest

from tests.process_factory import CLONE, popen

pytestmark = pytest.mark.skipif(CLONE is None, reason="here every program starts afresh")

PROGRAM = """
import atexit, json, os, signal, sys, threading
facts = {
    "parent": os.getppid(),
    "leads its group": os.getpgrp() == os.getpid(), "leads its session": os.getsid(0) == os.getpid(),
    "group": os.getpgrp() if os.getpgrp() != os.getpid() else None,
    "blocked": sorted(map(str, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
    "handlers": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD)],
    "open": [n for n in range(3, 200) if os.path.exists(f"/proc/self/fd/{n}") and os.get_inheritable(n)],
    "inherited": os.read(int(sys.argv[1]), 9).decode() if len(sys.argv) > 1 else None,
    "threads": threading.active_count(), "thread": threading.get_native_id() == os.getpid(),
    "argv": sys.argv, "folder": os.getcwd(), "is main": vars(sys.modules[__name__]) is globals(),
    "path": sys.path[:2], "environment": dict(os.environ),
}
print(json.dumps(facts), flush=True)
print("to stderr", file=sys.stderr)
atexit.register(print, "at exit")
sys.stdin.read()
signal.raise_signal(signal.SIGUSR1) if "die" in sys.argv else sys.exit(7)
"""
OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a session": {"start_new_session": True},
    "a group": {"process_group": 0},
    "a folder": {"cwd": "/"},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("blocked", [(), (signal.SIGTERM, signal.SIGINT)])
def test_a_forked_program_has_what_a_started_one_has(name: str, blocked: tuple[int, ...]) -> None:
    def told(start: Any) -> tuple[Any, ...]:
        reader, writer = os.pipe()
        os.write(writer, b"inherited")
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        # Given: readline has put the terminal's size where only the kernel sees it.
        pipes |= {"env": {**os.environ, "MINE": "1"}, "text": True}
        command = [sys.executable, "-c", PROGRAM, str(reader), *(["die"] if blocked else [])]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            process = start(command, pass_fds=[reader], **pipes, **OPTIONS[name])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(reader)
        os.close(writer)
        out, err = process.communicate(timeout=60)
        facts, *late = out.splitlines()
        return json.loads(facts), late, err, process.returncode

    started, *others = told(subprocess.Popen)
    for start in (popen, partial(popen, own_factory=True)):
        forked, *ends = told(start)
        assert {fact: told for fact, told in forked.items() if told != started[fact]} == {}
        assert ends == others
    late, code = ([], -signal.SIGUSR1) if blocked else (["at exit"], 7)
    assert others == [late, "to stderr\n", code]
