"""Worker processes: started together, replaced when they die, stopped together.

The supervisor imports no app and opens no database. It lives in one thread, which waits for
signals, for the processes, and for their next start, whichever comes first.
"""

import contextlib
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobqueue.loggers import get_logger
from jobqueue.records import counted
from jobqueue.supervisor import channel
from jobqueue.supervisor.signals import LAST_SECOND, STOPS, SignalPipe, signal_name

log = get_logger("jobqueue.supervisor")

BACKOFF_FIRST = 0.2  # seconds before the first new start; twice as long with every further one
BACKOFF_MAX = 30.0
HEALTHY = 60.0
"""Seconds at work after which a process counts as sound: its next death is a first one again."""

LAST_WORDS = 15.0
"""Seconds beyond the shutdown timeout that a worker is given to record its outcomes and end."""

AT_ONCE = LAST_SECOND + 2.0
"""Seconds that a worker is given to end at once."""

BAD_USAGE = 2
LOOK = 0.5  # seconds between two looks for a change
NEWS_MAX = 1 << 16  # bytes of one line of news


def spawn(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdout: Any = None,
    stderr: Any = None,
) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    """Start `jobqueue worker` on a leash; returns the process and the other end of the leash.

    Call it from a thread that lives as long as this process: Linux ends the child with it.
    """
    path = environment.get("PYTHONPATH")
    with contextlib.ExitStack() as made:  # Both ends are closed if no process comes of it.
        own, childs = map(made.enter_context, socket.socketpair())
        own.setblocking(False)
        process = subprocess.Popen(  # noqa: S603 - our own program.
            # -P: a folder here that is named like us is not what is meant.
            [sys.executable, "-P", "-m", "jobqueue", "worker", *arguments],
            # It runs the same code as this process; what its handlers start finds its own.
            env={
                **environment,
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                channel.VARIABLE: channel.hand_over(childs, path),
            },
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=[childs.fileno()],
            # Of its own, so that a Ctrl-C is the supervisor's alone to hear; in this session, so
            # that the kernel wakes one that stands still when the supervisor is gone.
            process_group=0,
        )
        made.pop_all()
    childs.close()
    return process, own


@dataclass(frozen=True)
class Plan:
    """What is to be started: the arguments by number, 1 … count; and how long a stop may take."""

    arguments: Callable[[int], Sequence[str]]
    count: int
    shutdown_timeout: float
    environment: Mapping[str, str]
    quiet: bool = False
    """What handlers print goes to stderr: stdout is for the summary."""


class Member:
    """One of the processes, and after its death the one in its place."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.leash: socket.socket | None = None
        self.start_at: float | None = 0.0
        """When the next one is due; None while one runs, and when none is to follow."""
        self.kill_at: float | None = None
        """When its patience with a stop is over."""
        self.began_at: float | None = None
        """When it said that it is at work."""
        self.deaths = 0
        """In a row."""
        self.code = 0
        """How it ended, when none is to follow."""
        self.summary: dict[str, Any] | None = None
        self.grown = False
        """It ended because of its memory: another one is to follow."""
        self.renewed = False
        """It was told to end because the code has changed: another one is to follow."""
        self._news = b""

    def start(self, plan: Plan) -> None:
        """Start a process."""
        self.start_at = self.kill_at = self.began_at = None
        self.summary, self.grown, self.renewed, self._news = None, False, False, b""
        self.process, self.leash = spawn(
            plan.arguments(self.number),
            plan.environment,
            stdout=sys.stderr.fileno() if plan.quiet else None,
        )

    def tell(self, times: int, patience: float) -> None:
        """Ask it to stop, once: in order, twice: at once; seconds until it is made to."""
        assert self.leash is not None
        self.kill_at = time.monotonic() + patience
        with contextlib.suppress(OSError):
            self.leash.send(channel.STOP * times)

    def listen(self) -> bool:
        """Take in what it says; False when it says nothing now, or nothing any more."""
        assert self.leash is not None
        try:
            heard = self.leash.recv(NEWS_MAX)
        except OSError:
            return False
        *lines, self._news = (self._news + heard)[-NEWS_MAX:].split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                self._learn(json.loads(line))
        return heard != b""

    def _learn(self, news: dict[str, Any]) -> None:
        if "began" in news:
            self.began_at = time.monotonic()
        if "ended" in news:
            self.summary = news["ended"]
            self.grown = bool(news.get("grown"))

    def delay(self) -> float:
        """Seconds until another one may take its place."""
        lived = 0.0 if self.began_at is None else time.monotonic() - self.began_at
        self.deaths = 1 if lived >= HEALTHY else self.deaths + 1
        return 0.0 if self.grown and lived >= HEALTHY else backoff(self.deaths)


def backoff(deaths: int) -> float:
    """Seconds after so many deaths in a row, with some jitter: not all at the same time."""
    most: float = min(BACKOFF_MAX, BACKOFF_FIRST * 2.0 ** min(deaths - 1, 16))
    return most * random.uniform(0.75, 1.0)  # noqa: S311 - jitter is no secret.


class Supervisor:
    """Runs worker processes until it is told to stop, or all have ended by themselves.

    The others start when the first is at work: what keeps every worker from starting (a bad app, no
    schema) is said once, and ends the supervisor with that exit code. From then on a process that
    dies is replaced, after a time that grows with its deaths in a row; one that ends with 0 is not.
    `changed` is asked twice a second for a file that has changed: then all are replaced at once.
    """

    def __init__(self, plan: Plan, changed: Callable[[], str | None] | None = None) -> None:
        self._plan = plan
        self._changed = changed
        self._members = [Member(number) for number in range(1, plan.count + 1)]
        self._selector = selectors.DefaultSelector()
        self._proven = False
        """One was at work: that others cannot start is no longer for a reason that all share."""
        self._level = 0
        self._verdict = 0
        self.signal: str | None = None
        """The first signal that it heard."""
        self.restarts = 0
        self.summaries: list[dict[str, Any]] = []
        """What each process said when it ended in order."""

    def run(self) -> int:
        """Until the end; returns the exit code."""
        log.info("supervises %s", counted(self._plan.count, "worker process"))
        with SignalPipe(*STOPS, signal.SIGCHLD) as pipe, self._selector, pipe.reader as signals:
            signals.setblocking(False)
            self._selector.register(signals, selectors.EVENT_READ)
            try:
                while self._living or self._awaits_more():
                    self._start_due()
                    self._wait(signals)
                    self._look()
            finally:
                for member in self._living:
                    self._kill(member)
        return max([self._verdict, *(member.code for member in self._members)])

    @property
    def _living(self) -> list[Member]:
        return [member for member in self._members if member.process is not None]

    def _awaits_more(self) -> bool:
        """True if another process is to be started."""
        if self._level:
            return False
        broken = self._changed is not None and any(member.code for member in self._members)
        return broken or any(member.start_at is not None for member in self._members)

    def _due(self) -> list[Member]:
        """Those that a process is to be started for, now or later."""
        if self._level:
            return []
        members = self._members if self._proven else self._members[:1]
        return [member for member in members if member.start_at is not None]

    def _start_due(self) -> None:
        for member in self._due():
            assert member.start_at is not None
            if member.start_at <= time.monotonic() and self._started(member):
                assert member.leash is not None
                self._selector.register(member.leash, selectors.EVENT_READ, member)

    def _started(self, member: Member) -> bool:
        """Start a process for it; False: there can be none now, and others that run go on."""
        try:
            member.start(self._plan)
        except OSError as error:
            if not self._proven:
                raise
            delay = member.delay()
            member.start_at = time.monotonic() + delay
            log.warning(
                "worker process %d cannot be started (%s); another try in %.1f s",
                member.number,
                error,
                delay,
            )
            return False
        return True

    def _wait(self, signals: socket.socket) -> None:
        """Until a signal, news of a process, or the time of something."""
        times = [member.start_at for member in self._due()]
        times += [member.kill_at for member in self._living]
        if self._changed is not None:
            times.append(time.monotonic() + LOOK)
        known = [at for at in times if at is not None]
        rest = max(0.0, min(known) - time.monotonic()) if known else None
        for key, _ in self._selector.select(rest):
            if key.fileobj is signals:
                for number in signals.recv(256):
                    self._handle_signal(number)
            elif key.data.listen():
                self._proven |= key.data.began_at is not None
            else:
                self._selector.unregister(key.fileobj)  # It ends now; SIGCHLD says when it has.

    def _handle_signal(self, number: int) -> None:
        if number not in STOPS or self._level > 1:
            return
        name = signal_name(number)
        self.signal = self.signal or name
        how = "at once" if self._level else "in order; a second signal stops them at once"
        count = counted(len(self._living), "worker process")
        log.info("%s: stopping %s %s", name, count, how)
        self._stop(self._level + 1)

    def _stop(self, level: int) -> None:
        """Pass a stop on to all.

        Over the leash, not as a signal: a service manager may send its own to them as well, and
        nobody's first one may be taken for a second.
        """
        patience = AT_ONCE if level > 1 else self._plan.shutdown_timeout + LAST_WORDS
        for member in self._members:
            if member.process is None:
                member.code = 0
            else:
                member.tell(level - self._level, patience)
        self._level = level

    def _look(self) -> None:
        for member in self._living:
            assert member.process is not None
            code = member.process.poll()
            if code is not None:
                self._ended(member, code)
            elif member.kill_at is not None and time.monotonic() >= member.kill_at:
                log.error("worker process %d did not stop in time: killed", member.process.pid)
                self._kill(member)
        if self._changed is not None and not self._level and (path := self._changed()):
            log.info("%s has changed: starting afresh", path)
            self._renew()

    @staticmethod
    def _kill(member: Member) -> None:
        assert member.process is not None
        member.kill_at = None
        member.process.kill()

    def _renew(self) -> None:
        """Replace all, now; running jobs go back."""
        for member in self._members:
            if member.process is not None:
                member.renewed = True
                member.tell(2, AT_ONCE)
            elif member.start_at is not None or member.code:
                member.start_at, member.code, member.deaths = 0.0, 0, 0

    def _ended(self, member: Member, code: int) -> None:
        pid = self._bury(member)
        if member.summary is not None:
            self.summaries.append(member.summary)
        idle = member.began_at is None
        # A 0 alone says nothing of one at work: a handler may have called os._exit(0).
        by_itself = code == 0 and (idle or member.summary is not None)
        if self._level:
            # One that was not at work yet has ended in order, whichever signal reached it.
            in_order = by_itself or (idle and -code in STOPS)
            member.code = 0 if in_order else 1
        elif member.renewed:
            member.start_at, member.deaths = 0.0, 0
        elif by_itself and not member.grown:
            log.info("worker process %d has ended by itself", pid)
            self._proven = True
        elif idle and (code == BAD_USAGE or not self._proven):
            self._refused(member, pid, code)
        else:
            self.restarts += 1
            delay = member.delay()
            member.start_at = time.monotonic() + delay
            log.warning(
                "worker process %d %s; another one starts in %.1f s",
                pid,
                _death(member, code),
                delay,
            )

    def _bury(self, member: Member) -> int:
        """Take in a dead process's last words; returns its process id."""
        assert member.process is not None
        assert member.leash is not None
        with contextlib.suppress(KeyError):
            self._selector.unregister(member.leash)
        while member.listen():
            pass
        self._proven |= member.began_at is not None
        member.leash.close()
        pid, member.process, member.leash = member.process.pid, None, None
        return pid

    def _refused(self, member: Member, pid: int, code: int) -> None:
        """It cannot start at all; another try would end the same."""
        member.code = code if code > 0 else 1
        if self._changed is not None:
            log.warning("worker process %d %s; waiting for a change", pid, _death(member, code))
            return
        log.error("worker process %d %s; so does the supervisor", pid, _death(member, code))
        self._verdict = member.code
        self._stop(1)


def _death(member: Member, code: int) -> str:
    if code < 0:
        return f"died by {signal_name(-code)}"
    if member.grown:
        return "ended because of its memory"
    return f"ended with exit code {code}" + ("" if member.began_at else " before it was at work")
