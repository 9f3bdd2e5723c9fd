"""The first program: a task, a job, a worker, a result. Run it: python first.py"""

from jobqueue import JobQueue

jobs = JobQueue("sqlite:///first.db")


@jobs.task
def add(x: int, y: int) -> int:
    return x + y


if __name__ == "__main__":
    job = add.enqueue(2, 3)  # Committed: from here on it survives kill -9.
    with jobs.worker():  # A worker inside this program; `jobqueue worker` is a process of its own.
        print(job.result(timeout=10))
