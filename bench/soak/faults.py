"""Random faults: whom, what, for how long; each one is said as it happens, and undone in its time."""

import heapq
import itertools
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from bench.soak.evidence import Interval, boottime
from bench.soak.fleet import LEASE, Fleet, Worker
from bench.soak.place import Place

PAUSE = (1.0, 4.0)  # seconds between two faults
AFTER_CRASH = 10.0  # seconds in which the server does not crash again, so that something gets done
SHORT, LONG = (0.1, 0.4), (1.3, 2.5)  # leases that a worker is frozen for
KILLED_FROZEN, TOLD_TWICE = 0.2, 0.15  # shares


class Faults:
    """What is done to workers and to the database. Used by one thread, which ticks."""

    def __init__(self, place: Place, fleet: Fleet, seed: str, say: Callable[[str], None]) -> None:
        self._place, self._fleet, self._say = place, fleet, say
        self._rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.crashes: list[float] = []
        self.outages: list[Interval] = []
        self._undo: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._next = boottime() + 2.0
        self._busy: set[str] = set()
        """What one of at a time is enough."""
        self._away: dict[str, float] = {}
        """Since when nobody can write, by the reason."""
        self._choices: list[tuple[int, Callable[[], None]]] = [
            (5, self._kill),
            (3, lambda: self._freeze("frozen for longer than a lease", LONG)),
            (3, lambda: self._freeze("frozen for less than a lease", SHORT)),
            (4, self._terminate),
        ]
        if place.kind == "postgres":
            self._choices += [(2, self._lock), (2, self._crash), (1, self._kill_a_backend)]
        elif place.disk is not None:
            self._choices.append((3, self._fill))

    def tick(self) -> None:
        """What is due."""
        while self._undo and self._undo[0][0] <= boottime():
            heapq.heappop(self._undo)[2]()
        if boottime() >= self._next:
            weights = [weight for weight, _ in self._choices]
            self._rng.choices([do for _, do in self._choices], weights)[0]()
            self._next = boottime() + self._rng.uniform(*PAUSE)

    def end(self) -> None:
        """Undo what is not undone yet."""
        while self._undo:
            heapq.heappop(self._undo)[2]()

    def under_way(self) -> list[Interval]:
        """Outages that have no end yet."""
        return [(began, float("inf")) for began in self._away.values()]

    def _back(self, what: str) -> None:
        self.outages.append((self._away.pop(what), boottime()))

    def _later(self, seconds: float, undo: Callable[[], None]) -> None:
        heapq.heappush(self._undo, (boottime() + seconds, next(self._order), undo))

    def _count(self, what: str, detail: str) -> None:
        self.counts[what] += 1
        self._say(f"{boottime():.2f} {what}: {detail}")

    def _someone(self) -> Worker | None:
        calm = self._fleet.calm
        return self._rng.choice(calm) if calm else None

    # Workers

    def _kill(self) -> None:
        if worker := self._someone():
            self._count("killed", worker.name)
            worker.kill()

    def _freeze(self, what: str, leases: tuple[float, float]) -> None:
        worker = self._someone()
        if worker is None:
            return
        seconds = LEASE * self._rng.uniform(*leases)
        kills = leases is LONG and self._rng.random() < KILLED_FROZEN
        self._count(what, f"{worker.name} for {seconds:.1f} s{', then killed' * kills}")
        began = boottime()
        worker.freeze()
        locks = self._place.kind == "sqlite" and not self._place.writable()
        if locks:
            self._count("… with SQLite's write lock in its hands", worker.name)
            self._away[worker.name] = began

        def undo() -> None:
            worker.kill() if kills else worker.thaw()
            if locks:
                self._back(worker.name)

        self._later(seconds, undo)

    def _terminate(self) -> None:
        worker = self._someone()
        if worker is None:
            return
        twice = self._rng.random() < TOLD_TWICE
        self._count("told to stop" + ", twice" * twice, worker.name)
        worker.terminate()
        if twice:
            self._later(self._rng.uniform(0.3, 1.0), worker.terminate)

    # The database

    def _alone(self, what: str) -> bool:
        """Whether nothing of that kind is under way; now there is."""
        if what in self._busy:
            return False
        self._busy.add(what)
        return True

    def _fill(self) -> None:
        if not self._alone("disk"):
            return
        seconds = self._rng.uniform(1, 2.5 * LEASE)
        self._away["disk"] = boottime()
        self._place.fill()
        self._count("the disk is full", f"for {seconds:.1f} s")

        def undo() -> None:
            self._place.free()
            self._busy.discard("disk")
            self._back("disk")

        self._later(seconds, undo)

    def _lock(self) -> None:
        """What CREATE INDEX holds: everyone reads, nobody writes."""
        import psycopg

        if "server" in self._busy or not self._alone("lock"):
            return
        seconds, began = self._rng.uniform(1, 2.5 * LEASE), boottime()
        try:
            connection = psycopg.connect(self._place.database.url)
            connection.execute("SET lock_timeout = 2000")
            connection.execute("LOCK TABLE jobqueue_workers IN SHARE MODE")
        except psycopg.Error as error:
            self._say(f"no lock: {error}")
            self._busy.discard("lock")
            return
        self._away["lock"] = began
        self._count("a SHARE lock on the workers", f"for {seconds:.1f} s")

        def undo() -> None:
            with suppress(psycopg.Error):  # The server may have crashed meanwhile.
                connection.rollback()
            connection.close()
            self._busy.discard("lock")
            self._back("lock")

        self._later(seconds, undo)

    def _crash(self) -> None:
        if not self._alone("server"):
            return
        seconds = self._rng.uniform(0.2, 1.5 * LEASE)
        self._away["server"] = boottime()
        self._count("the server crashed", f"back in {seconds:.1f} s")
        self._place.crash()
        self.crashes.append(boottime())

        def undo() -> None:
            self._place.start()
            self._back("server")
            self._later(AFTER_CRASH, lambda: self._busy.discard("server"))

        self._later(seconds, undo)

    def _kill_a_backend(self) -> None:
        """One of the server's processes is killed, as the kernel does out of memory: it starts afresh by itself."""
        if not self._alone("server"):
            return
        found = self._place.ask(
            "SELECT pid FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid()"
        )
        if found:
            self._away["server"] = boottime()
            self._count("a backend of the server was killed", "it starts afresh")
            with self._place.breaking(), suppress(ProcessLookupError):
                os.kill(self._rng.choice(found)[0], signal.SIGKILL)
            self.crashes.append(boottime())
            self._place.await_answer()
            self._back("server")
        self._later(AFTER_CRASH, lambda: self._busy.discard("server"))
