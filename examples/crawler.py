"""A polite crawler: 3 requests at a time at most, each page once, 20 pages in a run; run it again,
and it goes on where it stopped. It crawls a site of 30 pages that it serves itself on 127.0.0.1.
Run it: python examples/crawler.py (on crawler.db, or on the database in $JOBQUEUE_URL).
"""

import asyncio
import os
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.request import urlopen

from jobqueue import JobQueue, Task

AT_ONCE, PAGES_IN_A_RUN, PAGES = 3, 20, 30

jobs = JobQueue(os.environ.get("JOBQUEUE_URL", "sqlite:///crawler.db"))
site = ""


@jobs.task(queue="crawler", timeout=20, max_attempts=3)
async def crawl(page: str) -> int:
    body = await asyncio.to_thread(fetch, site + page)
    links = re.findall(r'href="(/page/\d+)"', body)
    for link in links:
        await once(link).aenqueue(link)  # One job per page, even after it has ended.
    print(f"{page} has {len(links)} links")
    return len(links)


def once(page: str) -> Task[[str], int]:
    """Hold the key until the row is deleted: a week after the page was crawled."""
    return crawl.options(unique_key=f"crawl {page}", unique_until="deleted")


def fetch(url: str) -> str:
    with urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
    return body.decode()


class Site(BaseHTTPRequestHandler):
    """Every page links to its neighbours, so that most are found more than once."""

    requested: ClassVar[Counter[str]] = Counter()
    present = most = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        with Site.lock:
            Site.requested[self.path] += 1
            Site.present += 1
            Site.most = max(Site.most, Site.present)
        number = int(self.path.rpartition("/")[2])
        time.sleep(0.02)
        links = [f'<a href="/page/{(number + step) % PAGES}">' for step in (-1, 1, 7)]
        with Site.lock:
            Site.present -= 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write("\n".join(links).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print no line for each request."""


def main() -> None:
    global site  # noqa: PLW0603 - the port is known only now.
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    site = f"http://127.0.0.1:{server.server_port}"
    once("/page/0").enqueue("/page/0")
    with jobs.worker(
        queues="crawler",
        poll=0.1,
        async_concurrency=AT_ONCE,
        max_jobs=PAGES_IN_A_RUN,
        drain=True,
    ) as worker:
        worker.wait()
    server.shutdown()
    server.server_close()
    jobs.close()
    twice = [page for page, times in Site.requested.items() if times > 1]
    print(f"{len(Site.requested)} pages, {len(twice)} of them twice, {Site.most} at once at most")


if __name__ == "__main__":
    main()
