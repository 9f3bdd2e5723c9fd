"""PID 1 in a container: forwards signals, and reaps processes that handlers have left behind.

The kernel makes PID 1 the parent of every orphan. A worker that reaped them itself would take exit
codes from its threads that wait for their own children, so the worker runs in a child.
"""

import contextlib
import os
import signal
import sys

FORWARDED = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
)


def run_as_pid_1() -> None:
    """Fork, and return in the child; this process exits with its code, or 128 + its signal.

    Call it before any thread is started.
    """
    # SIGTTOU is blocked so that the child may make its group the terminal's foreground group.
    blocked = {*FORWARDED, signal.SIGCHLD, signal.SIGTTOU}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os._exit(_forward_and_reap(child))
    _leave_group()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_group() -> None:
    """Move to a process group of its own: else a Ctrl-C would arrive twice."""
    terminal = None
    with contextlib.suppress(OSError):
        terminal = os.tcgetpgrp(0)
    foreground = terminal == os.getpgrp()
    os.setpgid(0, 0)
    if foreground:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(0, os.getpid())


def _forward_and_reap(child: int) -> int:
    """Forward signals and reap until the child exits; returns the exit code."""
    while True:
        number = signal.sigwait({*FORWARDED, signal.SIGCHLD})
        if number in FORWARDED:
            os.kill(child, number)  # Not reaped yet, so the pid is still its own.
            continue
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if not pid:
                break
