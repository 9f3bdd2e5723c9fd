"""One worker in a process of its own, told by lines what to do.

    python -m bench.worker URL '{"concurrency": 4, "drain": true}'

start: begin; says `done` when the worker ends by itself (drain, max_jobs). usage, durations: say so. End of input: stop.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench.app import DURATIONS, app
from bench.children import Child, say
from jobqueue.cli.commands.worker import tune_gc


class WorkerChild(Child):
    """The parent's side: a worker process, ready to start."""

    def __init__(self, url: str, **settings: Any) -> None:
        super().__init__("bench.worker", url, json.dumps({"concurrency": 4, **settings}))
        self.hear("ready", 60)


def resident() -> int:
    """This process's resident memory in bytes."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())])) * 1024


def main() -> None:
    jobs, *_ = app(sys.argv[1])
    worker = jobs.worker(**json.loads(sys.argv[2]))
    began = time.process_time()

    def usage() -> dict[str, Any]:
        return {
            "cpu": time.process_time() - began,
            "resident": resident(),
            "processed": worker.processed,
        }

    def await_end() -> None:
        if worker.wait():
            used = usage()
            worker.stop()
            say("done", **used)

    tune_gc()  # As `jobqueue worker` does.
    say("ready")
    for line in sys.stdin:
        word = line.strip()
        if word == "start":
            began = time.process_time()
            worker.start()
            threading.Thread(target=await_end, daemon=True).start()
        elif word == "usage":
            say("usage", **usage())
        elif word == "durations":
            say("durations", seconds=DURATIONS)
    sys.stdout = open(os.devnull, "w")  # Nobody listens any more to what `done` would say.
    last = threading.Timer(15, os._exit, [1])
    last.daemon = True
    last.start()
    worker.stop(5)
    jobs.close()
    os._exit(0)


if __name__ == "__main__":
    main()
