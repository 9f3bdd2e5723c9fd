"""Processes that claim from lanes and are killed in the midst of it: each is forked from this one, which has no threads.

python laning.py URL      one process after another dies, at each step of a worker's round; then one ends

A round claims from the lanes, as many as limits let start, ends the jobs and brings their lanes back. Each process first takes the
jobs of the one before it, and looks whether limits have held, and whether the lanes go on.
"""

import json
import sys
from collections import Counter
from time import monotonic, sleep

from dying_keys import die_at_each_step
from faults import Steps
from sqlalchemy import delete, select

from jobqueue import JobQueue
from jobqueue.records import Claim, Registration, Succeeded
from jobqueue.states import State
from jobqueue.store.claims import WorkerRef
from jobqueue.store.completion import Completion
from jobqueue.store.database import Store
from jobqueue.store.leases import Leases
from jobqueue.store.queue_control import QueueControl
from jobqueue.store.schema import jobs, workers
from jobqueue.worker.claim import lanes as planning

LIMITS = {"key": 2, "limited": 3}
"""Of a key, and of a queue with and without keys."""
JOBS = 200
GOES_ON = 2.0  # seconds: promise 6, for one host


def fill(queue: JobQueue) -> None:
    @queue.task(max_attempts=100)
    def work() -> None: ...

    key = work.options(concurrency_key="key", concurrency_limit=LIMITS["key"])
    limited = work.options(queue="limited")
    free = limited.options(concurrency_key="free", concurrency_limit=9)
    queue.enqueue_many(task.call() for task in (key, limited, free) for _ in range(JOBS))
    QueueControl(queue.store).limit("limited", LIMITS["limited"])


class Worker:
    """What a worker does about lanes, and at its start about the one that died before."""

    def __init__(self, store: Store) -> None:
        self.store, self.completion, self.leases = store, Completion(store), Leases(store)
        self.planner = planning.LanePlanner(store, None)

    def succeed(self) -> WorkerRef:
        """Take over the jobs of those before."""
        with self.store.write() as connection:
            connection.execute(delete(workers))
        lost = self.leases.reap()
        self.planner.lost(lost)
        who = Registration("w", "h", 1, None, None, None, None, None, ("work",), 9, 30.0)
        return WorkerRef(self.leases.register(who), "w")

    def running(self) -> Counter[str]:
        with self.store.read() as connection:
            running = select(jobs.c.lane, jobs.c.queue).where(jobs.c.state == State.RUNNING.value)
            rows = connection.execute(running).all()
        count = Counter(name for row in rows for name in row if name in LIMITS)
        assert all(count[name] <= most for name, most in LIMITS.items()), count
        return count

    def claim(self) -> list[Claim]:
        with self.store.read() as connection:
            self.planner.look(connection, announced=True)
        self.planner.refresh()
        with self.store.write() as connection:
            return self.planner.claim(connection, self.holder, limit=9, room=lambda *_: 9)

    def round(self) -> None:
        """Claim, end what was claimed, and bring the lanes back."""
        claims, deadline = self.claim(), monotonic() + 10 * GOES_ON
        while self.running() != LIMITS:  # The lock of one that was killed is there for a moment.
            assert monotonic() < deadline, self.running()
            sleep(0.002)
            claims += self.claim()
        outcomes = [Succeeded(claim, None, None, 0.1, 0.1) for claim in claims]
        with self.store.write() as connection:
            self.completion.complete(connection, self.holder, outcomes)
        self.planner.ended(outcomes)
        with self.store.write() as connection:
            self.planner.unpark_ended(connection)

    def live(self, dies_at: int = 0) -> None:
        self.running()
        self.holder = self.succeed()
        self.round()
        if dies_at:
            Steps(self.store.engine).die_at(dies_at)
            self.round()


def main(url: str) -> None:
    planning.SWEEP_INTERVAL = 0.0
    with JobQueue(url) as queue:
        fill(queue)
    store = Store(url)
    Worker(store).live()  # What is compiled once is compiled for all.
    store.engine.dispose()
    killed = die_at_each_step(lambda step: Worker(store).live(step))
    print(json.dumps({"killed": killed}))


if __name__ == "__main__":
    main(*sys.argv[1:])
