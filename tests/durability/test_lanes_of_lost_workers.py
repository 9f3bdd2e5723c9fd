"""Limits hold, and lanes go on, whatever dies."""

import json
import random
import statistics
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from processes import Process, ProcessScenario, app

from tests import process_factory

LANING = Path(__file__).with_name("laning.py")
WORKERS, LEASE, SECONDS = 8, 2.0, 60.0
FROZEN = (1.5 * LEASE, 3 * LEASE)  # seconds
FROZEN_AT_ONCE = 3
GOES_ON = 3 * (LEASE + 2)  # seconds: three times promise 6


def test_a_process_that_is_killed_at_any_step_of_a_claim_from_lanes_leaves_no_place_taken(
    scenario: ProcessScenario,
) -> None:
    command = [sys.executable, str(LANING), scenario.url]
    done = process_factory.run(command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["killed"] >= 20  # Each statement, each commit before and after.


class Frozen(NamedTuple):
    process: Process
    since: float
    until: float


class Run(NamedTuple):
    """One handler: from its beginning to its end, or to that of its process."""

    began: float
    ended: float
    pid: int


class Torment:
    """Kills workers, and stops them for longer than their lease; another one follows each that is killed."""

    def __init__(self, scenario: ProcessScenario) -> None:
        self.scenario, self.pick = scenario, random.Random(4)
        self.workers = scenario.workers(WORKERS, concurrency=2, lease=LEASE)
        self.killed: dict[int, float] = {}
        self.frozen: list[Frozen] = []
        self.stopped: list[Frozen] = []

    def go_on(self, seconds: float) -> None:
        until, pause = app.boottime() + seconds, threading.Event()
        while app.boottime() < until:
            pause.wait(self.pick.uniform(0.2, 0.8))
            self.resume(app.boottime())
            stopped = [frozen.process for frozen in self.stopped]
            victim = self.pick.choice([one for one in self.workers if one not in stopped])
            if self.pick.random() < 0.5:
                victim.kill()
                self.killed[victim.pid] = app.boottime()
                new = self.scenario.launch(concurrency=2, lease=LEASE)
                self.workers[self.workers.index(victim)] = new
            elif len(stopped) < FROZEN_AT_ONCE:
                since = app.boottime()
                victim.pause()
                self.stopped.append(Frozen(victim, since, since + self.pick.uniform(*FROZEN)))
        self.resume(float("inf"))

    def resume(self, present: float) -> None:
        for frozen in [one for one in self.stopped if one.until <= present]:
            frozen.process.resume()
            self.stopped.remove(frozen)
            self.frozen.append(frozen._replace(until=app.boottime()))

    def was_frozen(self, run: Run) -> bool:
        return any(
            frozen.process.pid == run.pid
            and run.began <= frozen.until
            and frozen.since <= run.ended
            for frozen in self.frozen
        )


@pytest.mark.timing  # For the time that it takes.
@pytest.mark.rerun_on_stall
def test_a_limit_of_1_holds_over_8_workers_that_are_killed_and_frozen(
    scenario: ProcessScenario, wait_until
) -> None:
    """Two handlers run at once only where the worker of the first was frozen beyond its lease, and its key goes on."""
    effects, torment = scenario.effects, Torment(scenario)
    options = {"concurrency_key": "one", "concurrency_limit": 1}
    scenario.many("work", [(0.05,)] * int(SECONDS / 0.05), **options)
    torment.go_on(SECONDS)
    ended = app.boottime()
    wait_until(lambda: effects.read("started")[-1].at > ended, GOES_ON)
    finished = {(effect.job, effect.fence): effect.at for effect in effects.read("finished")}
    runs = sorted(
        Run(began.at, finished.get((began.job, began.fence), torment.killed.get(began.pid, ended)),
            began.pid)
        for began in effects.read("started")
    )  # fmt: skip
    both = [
        (first, second)
        for place, first in enumerate(runs)
        for second in runs[place + 1 :]
        if second.began < first.ended
    ]
    gaps = [second.began - first.began for first, second in pairwise(runs)]
    print(
        f"{len(runs)} runs, {len(torment.killed)} workers killed, {len(torment.frozen)} frozen,"
        f" {len(both)} pairs at once, from start to start {statistics.median(gaps):.3f} s in the"
        f" median, {max(gaps):.2f} s at most"
    )
    assert [pair for pair in both if not torment.was_frozen(pair[0])] == []
    assert max(gaps) <= GOES_ON
