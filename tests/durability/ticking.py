"""Processes that do ticks and are killed in the midst of them: each is forked from this one, which has no threads.

python ticking.py URL steps 12         one process after another dies, at each step of a tick; then one ends
python ticking.py URL many 200         five at once do as many ticks, and one of them is killed again and again
python ticking.py URL clock FILE       one, whose clock steps as the file says
"""

import itertools
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from faults import Steps, step_clocks
from sqlalchemy import update

from jobqueue import JobQueue, every
from jobqueue.database_binding import write_declarations
from jobqueue.schedules.scheduled_calls import call_of
from jobqueue.store.schema import schedules
from jobqueue.store.schedule_ticks import Ticks

WORKERS = 5
MINUTES = 10


def build(url: str) -> JobQueue:
    jobs = JobQueue(url)

    @jobs.task(schedule=every(minutes=MINUTES), catch_up="all")
    def report() -> None: ...

    write_declarations(jobs._jobs.limits, jobs.registry, jobs.store)
    return jobs


def miss(jobs: JobQueue, count: int) -> str:
    """Make as many ticks due; return the instant of the one after them, which time may make due."""
    following = jobs.schedules.get("report").next_at
    first = following - count * timedelta(minutes=MINUTES)
    with jobs.store.write() as connection:
        connection.execute(update(schedules).values(next_at=first))
    return following.isoformat()


def tick(jobs: JobQueue, ticks: Ticks, most: int = 1) -> bool:
    """Do one tick; False if none is due, or another process is at it."""
    make = lambda record: call_of(jobs.registry["report"], record.definition).to_new_job()
    return ticks.tick(["report"], ["report"], make, most=most) is not None


def until_done(jobs: JobQueue, ticks: Ticks) -> None:
    pause = threading.Event()
    while (ticks.due_in(["report"], ["report"]) or 0) <= 0:
        if not tick(jobs, ticks):
            pause.wait(0.002)  # The lock of one that was killed is there until the server knows.


def child(work: Callable[[], None]) -> int:
    """Fork a process that does the work, and give its id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def dies_at(step: int, url: str) -> None:
    """Do one tick, and die at one of its steps."""
    jobs = build(url)
    ticks = Ticks(jobs.store)
    ticks.due_in(["report"], ["report"])  # What is asked once is asked.
    steps, pause = Steps(jobs.store.engine), threading.Event()
    steps.die_at(step)
    while not tick(jobs, ticks):
        steps.die_at(step)  # It has not come that far: the row was still locked.
        pause.wait(0.002)


def die_at_each_step(url: str) -> dict[str, int]:
    for step in itertools.count(1):
        _, status = os.waitpid(child(lambda step=step: dies_at(step, url)), 0)
        if not os.WIFSIGNALED(status):
            assert status == 0
            return {"killed": step - 1}


def many(url: str) -> dict[str, int]:
    def work() -> None:
        jobs = build(url)
        until_done(jobs, Ticks(jobs.store))

    pick, killed = random.Random(7), 0
    alive = [child(work) for _ in range(WORKERS)]
    pause = threading.Event()
    while True:
        pause.wait(pick.uniform(0.01, 0.06))
        victim = pick.choice(alive)
        ended, status = os.waitpid(victim, os.WNOHANG)
        if ended:
            assert status == 0
            break
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        killed += 1
        alive[alive.index(victim)] = child(work)
    alive.remove(victim)
    assert [os.waitpid(pid, 0)[1] for pid in alive] == [0] * len(alive)
    return {"killed": killed}


def clock(url: str, file: Path) -> dict[str, list[int]]:
    """How many jobs there are after each step of the clock, by hours."""
    file.write_text("0")
    step_clocks(file)
    jobs = build(url)
    ticks, made = Ticks(jobs.store), []
    for hours in (0, 1, -1, 0, 2, 1, 2):
        file.write_text(str(3600 * hours))
        if not jobs.store.backend.single_writer:
            with jobs.store.engine.begin() as connection:
                connection.exec_driver_sql(f"UPDATE fake.step SET seconds = {3600 * hours}")
        until_done(jobs, ticks)
        made.append(len(list(jobs.list(limit=None))))
    return {"made": made}


def main(url: str, mode: str, given: str) -> None:
    if mode == "clock":
        print(json.dumps(clock(url, Path(given))))
        return
    with build(url) as jobs:
        following = miss(jobs, int(given))
    done = die_at_each_step(url) if mode == "steps" else many(url)
    print(json.dumps({**done, "following": following}), flush=True)
    with build(url) as jobs:
        until_done(jobs, Ticks(jobs.store))


if __name__ == "__main__":
    main(*sys.argv[1:])
