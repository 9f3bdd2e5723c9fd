"""The app of the demo's workers: `jobqueue worker --app jobqueue.demo.app:jobs`."""

import os
import signal
import threading

from jobqueue.demo.tasks import register
from jobqueue.queue import JobQueue
from jobqueue.worker.program import Import

LEASH = "JOBQUEUE_DEMO_LEASH"
LAST_SECONDS = 3.0


def hold_on_to_stdin() -> None:
    """Stop this process when its stdin ends: when whoever started it is gone, however it went."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(LAST_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="jobqueue-demo-leash", daemon=True).start()


if os.environ.get(LEASH) and not Import.under_way:  # A child hangs on its worker instead.
    hold_on_to_stdin()

jobs = JobQueue()
register(jobs)
