"""Processes that are killed while they deal with a unique key, each at another step and with a key of its own.

python dying_keys.py URL FOLDER rerun      workers: ending a job whose key has a rerun asked, and passing its key on
python dying_keys.py URL FOLDER debounce   enqueuers: making the job, and putting it off

They are forked from this one, which has no threads, and has done the same once. Prints how many were killed. A line in FOLDER/runs
is a handler that began, by its job.
"""

import itertools
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from faults import Steps
from one_key import append, child
from sqlalchemy import select

from jobqueue import JobQueue, current_job
from jobqueue.store.leases import Leases
from jobqueue.store.schema import workers
from jobqueue.testing.inline_worker import Inline


class Scene:
    """A queue, and a worker without threads: its statements come in one order."""

    def __init__(self, url: str, folder: Path) -> None:
        self.jobs = jobs = JobQueue(url)
        self.steps = Steps(jobs.store.engine)
        self.worker = Inline(
            jobs.store, jobs.registry, jobs._transactions, events=jobs.events, middleware=()
        )
        self.dies_at = 0

        @jobs.task
        def work(asks: str | None = None) -> None:
            append(folder / "runs", f"{current_job().id}")
            if asks:
                work.options(unique_key=asks, rerun=True).enqueue()
                self.steps.die_at(self.dies_at)

        self.task = work

    def rerun(self, step: int) -> None:
        with self.worker.lease():
            self.run_all()  # What others have left.
            self.dies_at = step
            self.task.options(unique_key=f"{step}").enqueue(f"{step}")
            self.worker.run(self.worker.claim_next())
            self.worker.promote()
            self.steps.die_at(0)

    def debounce(self, step: int) -> None:
        task = self.task.options(unique_key=f"{step}", debounce=300, max_wait=600)
        self.steps.die_at(step)
        task.enqueue()
        task.enqueue()

    def recover(self) -> None:
        """Take their leases from the dead, and run what is left."""
        leases = Leases(self.jobs.store)
        with self.jobs.store.read() as connection:
            dead = connection.execute(select(workers.c.id)).scalars().all()
        for id_ in dead:
            leases.deregister(id_)
        leases.reap()
        with self.worker.lease():
            self.run_all()

    def run_all(self) -> None:
        self.worker.promote()
        while claim := self.worker.claim_next():
            self.worker.run(claim)
            self.worker.promote()


def die_at_each_step(die: Callable[[int], None]) -> int:
    for step in itertools.count(1):
        _, status = os.waitpid(child(lambda: die(step)), 0)
        if not os.WIFSIGNALED(status):
            assert status == 0
            return step - 1
    raise AssertionError


def main(url: str, folder: Path, what: str) -> None:
    logging.getLogger("jobqueue").setLevel(logging.ERROR)
    scene = Scene(url, folder)
    die = getattr(scene, what)
    die(0)
    killed = die_at_each_step(die)
    scene.recover()
    print(json.dumps({"killed": killed}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
