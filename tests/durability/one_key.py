"""Processes that enqueue the same keys at once, and workers beside them, so that the holders come and go.

python one_key.py URL FOLDER MODES PROCESSES CALLS

Each mode has a task and a key of its own, and each process calls each task so often. Prints what came of it, as JSON. All
processes are forked from this one, which has no threads, and opens the database after that.
"""

import fcntl
import json
import logging
import os
import statistics
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from jobqueue import JobQueue, current_job
from jobqueue.states import FINAL
from jobqueue.store.schema import jobs as table
from jobqueue.store.sql.predicates import HOLDS_KEY

WORKERS = 2
MAX_WAIT = 0.2
MODES: dict[str, Any] = {
    "ignore": {},
    "replace": {"on_conflict": "replace"},
    "reschedule": {"on_conflict": "reschedule"},
    "debounce": {"debounce": 0.02, "max_wait": MAX_WAIT},
    "rerun": {"rerun": True},
}


def append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


def build(url: str, folder: Path) -> JobQueue:
    jobs = JobQueue(url)

    def handler(mode: str) -> Callable[[int], None]:
        def work(number: int) -> None:
            with (folder / mode).open("w") as mine:
                try:
                    fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    append(folder / "overlaps", mode)
                append(folder / "runs", f"{current_job().id} {time.time()}")
                threading.Event().wait(0.005)

        return work

    for mode, options in MODES.items():
        jobs.task(name=mode, unique_key=mode, **options)(handler(mode))
    return jobs


def child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run_worker(url: str, folder: Path, until_closed: int) -> None:
    with build(url, folder) as jobs, jobs.worker(poll=0.05, concurrency=4):
        os.read(until_closed, 1)


def produce(url: str, folder: Path, modes: list[str], calls: int, file: Path) -> None:
    told: list[Any] = []
    with build(url, folder) as jobs:
        for number in range(calls * len(modes)):
            mode = modes[number % len(modes)]
            at, began = time.time(), time.perf_counter()
            try:
                job = jobs.registry[mode].enqueue(number)
            except Exception as error:
                told.append((mode, at, time.perf_counter() - began, None, repr(error)))
            else:
                told.append((mode, at, time.perf_counter() - began, job.id, job.created))
    file.write_text(json.dumps(told))


def watch(jobs: JobQueue, alive: list[int]) -> tuple[int, list[str]]:
    """Wait until the processes have ended; count looks, and find keys with two holders."""
    held = select(table.c.unique_key).where(table.c.unique_key.in_(MODES), HOLDS_KEY)
    looks, twice, pause = 0, [], threading.Event()
    while alive:
        pause.wait(0.01)
        with jobs.store.read() as connection:
            counts = Counter(connection.execute(held).scalars())
        looks += 1
        twice += [key for key, count in counts.items() if count > 1]
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            alive.remove(ended)  # Not a worker: these go on.
            assert status == 0, status
    return looks, twice


def until_empty(jobs: JobQueue) -> None:
    live = select(func.count()).where(table.c.state.not_in(FINAL))
    pause = threading.Event()
    while True:
        with jobs.store.read() as connection:
            if not connection.execute(live).scalar_one():
                return
        pause.wait(0.01)


def read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def verdict(jobs: JobQueue, told: list[Any], runs: list[str]) -> dict[str, Any]:
    made = [id_ for *_, id_, created in told if created is True]
    with jobs.store.read() as connection:
        rows = {row.id: row for row in connection.execute(select(table))}
    latest = {id_: row.created_at + timedelta(seconds=MAX_WAIT) for id_, row in rows.items()}
    # The handler's own clock: started_at is of the claim's beginning, and a call that comes before
    # its commit finds the job waiting.
    begun = {int(id_): float(at) for id_, at in map(str.split, runs)}
    asked = [(begun[id_], at) for mode, at, _, id_, _ in told if mode == "rerun" and id_]
    waits = sorted(1000 * seconds for _, _, seconds, *_ in told)
    return {
        "calls": len(told),
        "errors": [what for *_, id_, what in told if id_ is None],
        "made": len(made),
        "made twice": len(made) - len(set(made)),
        "jobs": len(rows),
        "states": dict(Counter(row.state for row in rows.values())),
        "begun before the call": sum(start < at for start, at in asked),
        "due too late": sum(
            row.run_at > latest[id_] for id_, row in rows.items() if row.task == "debounce"
        ),
        "p50, p99, longest (ms)": [
            round(wait, 1)
            for wait in (statistics.median(waits), waits[int(0.99 * len(waits))], waits[-1])
        ],
    }


def main(url: str, folder: Path, modes: list[str], processes: int, calls: int) -> dict[str, Any]:
    logging.getLogger("jobqueue").setLevel(logging.ERROR)  # A key that is held is warned of.
    files = [folder / f"producer-{number}" for number in range(processes)]
    until_closed, closing = os.pipe()

    def work() -> None:
        os.close(closing)
        run_worker(url, folder, until_closed)

    workers = [child(work) for _ in range(WORKERS)]
    began = time.perf_counter()
    alive = [child(lambda file=file: produce(url, folder, modes, calls, file)) for file in files]
    with build(url, folder) as jobs:
        looks, twice = watch(jobs, alive)
        took = time.perf_counter() - began
        until_empty(jobs)
        os.close(closing)
        assert [os.waitpid(pid, 0)[1] for pid in workers] == [0] * WORKERS
        told = [line for file in files for line in json.loads(file.read_text())]
        runs = read_lines(folder / "runs")
        found = verdict(jobs, told, runs)
    count = {"runs": len(runs), "overlaps": len(read_lines(folder / "overlaps"))}
    return {**found, **count, "looks": looks, "two holders": twice, "seconds": round(took, 1)}


if __name__ == "__main__":
    url, folder, modes, processes, calls = sys.argv[1:]
    print(json.dumps(main(url, Path(folder), modes.split(","), int(processes), int(calls))))
