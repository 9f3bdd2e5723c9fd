"""`python -m bench soak`: the course of a soak, from the first worker to the verdict."""

import argparse
import logging
import os
import random
import signal
import sys
import time
from typing import Any

from bench.soak.evidence import boottime
from bench.soak.faults import Faults
from bench.soak.fleet import STOP_MAX, Fleet, Worker
from bench.soak.judge import Complaint
from bench.soak.place import Place
from bench.soak.report import report

QUIET = 60.0  # seconds without one job less after which what is left is stuck
DRAIN_MAX = 900.0
READY = 60.0
RECOVERY = 30.0  # seconds after which a producer that gets no answer is a complaint
LIVE = "'scheduled', 'available', 'running'"


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench soak",
        description="Workers under random faults; then a verdict on every job. Ctrl-C ends it in order.",
    )
    parser.add_argument("--database", choices=("sqlite", "postgres"), required=True)
    parser.add_argument("--minutes", type=float, default=30, help="default: 30")
    parser.add_argument("--seed", type=int, help="of the faults and of the jobs; default: random")
    parser.add_argument("--workers", type=int, default=4, help="default: 4")
    parser.add_argument("--rate", type=float, default=20, help="jobs a second; default: 20")
    parser.add_argument("--quiet", action="store_true", help="no line for each fault")
    parsed = parser.parse_args(given)
    if parsed.seed is None:
        parsed.seed = random.SystemRandom().randrange(1_000_000)
    return parsed


def say(text: str) -> None:
    print(f"soak: {text}", file=sys.stderr, flush=True)


class Soak:
    """One soak. Faults, workers and counting are the main thread's; the producer has its own."""

    def __init__(self, given: argparse.Namespace, place: Place) -> None:
        from bench.soak.producer import Producer

        self._given, self._place = given, place
        self.log_path = place.folder / "handlers.log"
        self.log_path.touch()
        self.fleet = Fleet(place.folder, place.database.url, self.log_path, given.workers)
        fault = (lambda _text: None) if given.quiet else say
        self.faults = Faults(place, self.fleet, f"faults {given.seed}", fault)
        self.producer = Producer(given.rate, f"jobs {given.seed}")
        self.complaints: list[Complaint] = []
        self.failed_starts = 0
        self._backlog: dict[str, int] = {}
        self._count_at = 0.0
        self._ending = False

    def end(self, *_: object) -> None:
        """Ctrl-C: no more faults. The next one does not wait for anything."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say("ending; Ctrl-C again gives the verdict at once")
        self._ending = True

    def run(self) -> None:
        """Faults until the time is up or Ctrl-C; then wait for what is left, and stop."""
        # Not by an exception: half a fault could not be undone.
        signal.signal(signal.SIGINT, self.end)
        self.fleet.fill_up()
        self._until(lambda: len(self.fleet.calm) == self._given.workers, READY)
        self.producer.start()
        self._torment(60 * self._given.minutes)
        self.faults.end()
        try:
            self._calm_down()
        except KeyboardInterrupt:
            self.complaints.append(Complaint("the end was not waited for"))

    def _torment(self, seconds: float) -> None:
        began, minute = boottime(), 0
        while (passed := boottime() - began) < seconds and not self._ending:
            self.faults.tick()
            self._look()
            self.fleet.fill_up()
            if passed >= 60 * (minute + 1):
                minute += 1
                say(f"minute {minute} of {self._given.minutes:g}: {self._progress()}")
            time.sleep(0.02)

    def _calm_down(self) -> None:
        self.producer.stop()
        say(f"no more faults and no more jobs: {self._progress()}")
        self._until(lambda: len(self.fleet.calm) == self._given.workers, READY, fill=True)
        self._drain()
        for worker in self.fleet.present:
            worker.terminate()
        self._until(lambda: not self.fleet.present, STOP_MAX + 1)

    def _drain(self) -> None:
        """Wait until everything is final, as long as there are fewer and fewer that are not."""
        limit = boottime() + DRAIN_MAX
        left = sum(self._backlog.values()) + 1
        while left and boottime() < limit:
            before = left
            if not self._until(lambda: sum(self._count().values()) < before, QUIET, fill=True):
                break
            left = sum(self._backlog.values())
        if left:
            self.complaints.append(
                Complaint(f"{left} jobs do not become final: {self._progress()}")
            )

    def _until(self, predicate: Any, seconds: float, *, fill: bool = False) -> bool:
        """Wait until it is true; False: it was not within that time."""
        limit = boottime() + seconds
        while not predicate():
            if boottime() > limit:
                return False
            self._look()
            if fill:
                self.fleet.fill_up()
            time.sleep(0.1)
        return True

    # What is looked at all the time

    def _look(self) -> None:
        for worker in self.fleet.look():
            self._judge_exit(worker)
        for worker in self.fleet.present:
            told = worker.life.terminated
            if told is not None and boottime() - told > STOP_MAX:
                self._complain(f"it had not stopped after {STOP_MAX:g} s", worker)
                worker.kill()
        self._look_at_producer()
        if boottime() >= self._count_at:
            self._count_at = boottime() + 1.0
            self._count()

    def _look_at_producer(self) -> None:
        from bench.soak.producer import BACKLOG_MAX

        enough = sum(self._backlog.values()) > BACKLOG_MAX
        (self.producer.enough.set if enough else self.producer.enough.clear)()
        since = max([self.producer.answered_at, *(end for _, end in self.faults.outages)])
        if self.producer.is_alive() and boottime() - since > RECOVERY:
            refused = dict(self.producer.refused)
            self.complaints.append(
                Complaint(f"no enqueue was answered for {RECOVERY:g} s: {refused}")
            )
            self.producer.answered_at = boottime()

    def _judge_exit(self, worker: Worker) -> None:
        life = worker.life
        if life.killed is not None or (life.terminated is not None and life.code in (0, 1)):
            return
        away = self.faults.outages + self.faults.under_way()
        if life.ready is None and any(a <= life.exited and life.started <= b for a, b in away):
            self.failed_starts += 1  # While the database was away.
            return
        self._complain(f"it ended by itself with {life.code}", worker)

    def _complain(self, what: str, worker: Worker) -> None:
        last = "\n        ".join(worker.log.splitlines()[-15:])
        say(f"{worker.name}: {what}\n        {last}")
        self.complaints.append(Complaint(f"a worker: {what}", None, worker.name))

    def _count(self) -> dict[str, int]:
        """Live jobs by state; as last known while the database does not answer."""
        question = (
            f"SELECT state, count(*) FROM jobqueue_jobs WHERE state IN ({LIVE}) GROUP BY state"
        )
        answer = self._place.ask(question)
        if answer is not None:
            self._backlog = dict(answer)
        return self._backlog

    def _progress(self) -> str:
        done = self.log_path.read_bytes().count(b'["end"')
        live = ", ".join(f"{count} {state}" for state, count in sorted(self._backlog.items()))
        faults = sum(self.faults.counts.values())
        return f"{done} handlers ended, {faults} faults, {self.fleet.started} workers; {live or 'no live jobs'}"


def main(given: list[str]) -> int:
    parsed = arguments(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.getLogger("jobqueue").setLevel(logging.ERROR)  # Keys that are held are part of the mix.
    say(f"seed {parsed.seed}, {parsed.minutes:g} minutes on {parsed.database}")
    with Place(parsed.database) as place:
        os.environ["JOBQUEUE_URL"] = place.database.url  # Before the tasks are imported.
        from bench.soak.tasks import effects, plain_engine
        from jobqueue.store.migrate import upgrade

        if parsed.database == "sqlite" and place.disk is None:
            say("no disk of its own could be mounted (that needs root): it will not be full")
        upgrade(place.database.url)
        effects.create(plain_engine())
        soak = Soak(parsed, place)
        try:
            soak.run()
        finally:
            soak.fleet.end()
        return report(parsed, place, soak)
