"""An elastic pool: two bursts of jobs let it grow from 2 slots to 6, and idle time back to 2.
Run it: python examples/elastic_pool.py (on elastic_pool.db, or on the database in $JOBQUEUE_URL).
"""

import logging
import os
import queue
import re
import time

from jobqueue import JobQueue

jobs = JobQueue(os.environ.get("JOBQUEUE_URL", "sqlite:///elastic_pool.db"))
began = time.monotonic()
sizes: queue.Queue[int] = queue.Queue()


@jobs.task
def work() -> None:
    time.sleep(0.05)


class Decisions(logging.Handler):
    """The worker logs each change of its size, with the reason."""

    def emit(self, record: logging.LogRecord) -> None:
        if change := re.match(r"slots: \d+ -> (\d+): ", record.getMessage()):
            print(f"{time.monotonic() - began:5.2f} s  {record.getMessage()}")
            sizes.put(int(change[1]))


def main() -> None:
    log = logging.getLogger("jobqueue.worker")
    log.setLevel(logging.INFO)
    log.addHandler(Decisions())
    # The cooldowns are 5 and 10 seconds by default; here they are short, to show the effect.
    with jobs.worker(
        min_concurrency=2, max_concurrency=6, scale_up_cooldown=0.1, scale_down_cooldown=0.2
    ):
        for burst in (1, 2):
            handles = jobs.enqueue_many(work.call() for _ in range(60))
            print(f"{time.monotonic() - began:5.2f} s  burst {burst}: {len(handles)} jobs")
            for _ in jobs.as_completed(handles, timeout=30):
                pass
            print(f"{time.monotonic() - began:5.2f} s  burst {burst} is done")
            while (size := sizes.get(timeout=30)) != 2:
                pass
    jobs.close()
    print(f"it ends with {size} slots")


if __name__ == "__main__":
    main()
