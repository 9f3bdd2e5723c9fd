"""An app whose import takes, in a child process, until the test lets the children of that worker through."""

import os
import sys
from pathlib import Path

from app import Effects, wait_for

from jobqueue import JobQueue

jobs = JobQueue(os.environ["SLOW_URL"])
seen = Effects(Path(os.environ["SLOW_EFFECTS"]))

if "jobqueue.worker.isolate.child_main" in sys.modules:  # Neither the worker nor the test.
    folder = seen.path.parent
    worker = os.getppid()
    (folder / f"child-{worker}").write_text(str(os.getpid()))
    (folder / f"child-{worker}").rename(folder / f"importing-{worker}")
    wait_for((folder / f"ready-{worker}").exists)


@jobs.task(isolation="process")
def apart() -> int:
    seen.write("started")
    return os.getpid()


@jobs.task
def in_a_thread() -> int:
    """Runs in a child process as well, after a crash."""
    seen.write("started")
    return os.getpid()
