"""One worker as the command line runs it, which dies with the soak.

python -m bench.soak.worker ARGUMENTS OF jobqueue worker
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent = int(os.environ["SOAK_PARENT"])
    # SIGKILL, because it reaches a process that is stopped too. It is for the death of the parent's main thread.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    from bench.soak.tasks import watch_for_stalls
    from jobqueue.cli.main import main as cli

    watch_for_stalls()
    sys.argv = ["jobqueue", "worker", *sys.argv[1:]]
    sys.exit(cli())


if __name__ == "__main__":
    main()
