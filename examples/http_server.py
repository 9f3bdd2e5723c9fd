"""A task server: GET /task/7 answers at once with a job's id, GET /result/ID shows its state.
Ctrl-C or SIGTERM stops in order: nothing more is accepted, running jobs end, exit code 0.
Run it: python examples/http_server.py [PORT] (on http_server.db, or the database in $JOBQUEUE_URL).
"""

import json
import os
import re
import signal
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from jobqueue import JobNotFound, JobQueue

jobs = JobQueue(os.environ.get("JOBQUEUE_URL", "sqlite:///http_server.db"))


@jobs.task
def process(number: int) -> str:
    time.sleep(0.3)
    return f"task {number} is done"


class Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds for which a silent client may occupy a thread

    def do_GET(self) -> None:
        if found := re.fullmatch(r"/task/(\d{1,9})", self.path):
            self.reply(HTTPStatus.ACCEPTED, job=process.enqueue(int(found[1])).id)
        elif found := re.fullmatch(r"/result/(\d{1,18})", self.path):
            try:
                job = jobs.get(int(found[1]))
                record = job.record()
            except JobNotFound as error:
                self.reply(HTTPStatus.NOT_FOUND, error=str(error))
            else:
                result = job.result(timeout=0) if record.state == "succeeded" else None
                self.reply(HTTPStatus.OK, state=record.state, result=result)
        else:
            self.reply(HTTPStatus.NOT_FOUND, error="there are /task/NUMBER and /result/JOB")

    def reply(self, status: HTTPStatus, **content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print no line for each request."""


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for pending answers.


def main(port: int) -> int:
    server = Server(("127.0.0.1", port), Handler)
    worker = jobs.worker(concurrency=3)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: worker.request_stop())
    worker.start()
    threading.Thread(target=server.serve_forever, args=(0.05,)).start()
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    worker.wait()
    server.shutdown()  # First stop accepting requests,
    server.server_close()
    print(f"stopping: {worker.running} jobs are running", flush=True)
    in_order = worker.stop()  # then wait for running jobs; jobs that have not started stay queued.
    jobs.close()
    print("stopped", flush=True)
    return 0 if in_order else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8080))
