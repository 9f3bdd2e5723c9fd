"""A fixed pool: three workers take nine jobs from a queue, and results arrive as jobs finish.
Run it: python examples/basic_pool.py (on basic_pool.db, or on the database in $JOBQUEUE_URL).
"""

import os
import time

from jobqueue import JobQueue

jobs = JobQueue(os.environ.get("JOBQUEUE_URL", "sqlite:///basic_pool.db"))


@jobs.task
def square(number: int) -> int:
    time.sleep(0.05 * (number % 3 + 1))  # The work; some jobs take longer than others.
    return number * number


def main() -> None:
    numbers = range(1, 10)
    handles = jobs.enqueue_many(square.call(number) for number in numbers)  # all, or none
    print(f"{len(handles)} jobs are written down")
    number_of = dict(zip(handles, numbers, strict=True))
    with jobs.worker(concurrency=3):
        for job in jobs.as_completed(handles, timeout=30):
            took = job.record().duration
            print(f"job {number_of[job]}: the square is {job.result()} ({took:.2f} s)")
    jobs.close()
    print("all results are in")


if __name__ == "__main__":
    main()
