"""Time limits and early ends: timeouts, cancelling, progress, a deadline that children inherit.
Run it: python examples/context_pool.py (on context_pool.db, or on the database in $JOBQUEUE_URL).
"""

import os
import threading
import time

from jobqueue import Job, JobCancelled, JobFailed, JobQueue, current_job

jobs = JobQueue(os.environ.get("JOBQUEUE_URL", "sqlite:///context_pool.db"))
begun = threading.Event()


@jobs.task(max_attempts=1)
def count(steps: int) -> str:
    """A thread is asked to stop, never killed: a handler that calls check() often stops soon."""
    for step in range(steps):
        current_job().check()  # raises once the job is cancelled or timed out
        current_job().progress(step / steps, f"step {step} of {steps}")
        if step == 3:
            begun.set()
        time.sleep(0.01)
    return f"counted to {steps}"


@jobs.task
def child() -> float | None:
    return current_job().remaining()


@jobs.task
def parent() -> tuple[int, float | None]:
    left = current_job().remaining()
    return child.enqueue().id, left  # The child has to end by the parent's deadline.


def outcome(job: Job[str]) -> str:
    try:
        return job.result(timeout=30)
    except JobCancelled:
        return "cancelled"
    except JobFailed as error:
        return f"failed: {error.errors[-1].type}"


def main() -> None:
    with jobs.worker(concurrency=2):
        print("in time:", outcome(count.options(timeout=20).enqueue(5)))
        print("too slow:", outcome(count.options(timeout=0.3).enqueue(100_000)))

        waiting = count.options(delay=3600).enqueue(5)
        waiting.cancel()
        print("waiting:", outcome(waiting), "after", waiting.record().attempt, "attempts")

        begun.clear()
        running = count.enqueue(100_000)
        begun.wait(30)
        running.cancel()  # check() raises within a second, in any process.
        print("running:", outcome(running), "at", running.record().progress_message)

        child_id, parent_left = parent.options(deadline=10).enqueue().result(timeout=30)
        child_left = jobs.get(child_id).result(timeout=30)
        print(f"a deadline of 10 s leaves the parent {parent_left:.3f}, its child {child_left:.3f}")
    jobs.close()


if __name__ == "__main__":
    main()
