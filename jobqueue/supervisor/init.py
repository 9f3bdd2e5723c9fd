"""PID 1, as in a container: passes signals on, and reaps what handlers have left behind.

The kernel gives every orphan to PID 1. A worker that reaped them itself would take exit codes from
those of its threads that wait for their own children, so it runs in a child of its own.
"""

import contextlib
import os
import signal
import sys

PASSED_ON = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
)


def be_init() -> None:
    """Go on in a child; this process ends with its exit code, or 128 and the signal it died of.

    Call it before there is a thread.
    """
    # SIGTTOU: a group in the background may then make itself that of the terminal.
    heard = {*PASSED_ON, signal.SIGCHLD, signal.SIGTTOU}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os._exit(_tend(child))
    _leave_group()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_group() -> None:
    """Have a group of its own, which a terminal sends its Ctrl-C to: else it came twice."""
    terminal = None
    with contextlib.suppress(OSError):
        terminal = os.tcgetpgrp(0)
    foreground = terminal == os.getpgrp()
    os.setpgid(0, 0)
    if foreground:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(0, os.getpid())


def _tend(child: int) -> int:
    """Until the child's end; returns the exit code."""
    while True:
        number = signal.sigwait({*PASSED_ON, signal.SIGCHLD})
        if number in PASSED_ON:
            os.kill(child, number)  # It is not reaped yet, so the number is its own.
            continue
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if not pid:
                break
