"""Take docs/dashboard.png, the picture in README.md, and docs/top.svg from a shop's jobs: run `make pictures`.

Jobs, workers and the page are real. Only the last hour is not: its counts are written as if workers had done so.
"""

import asyncio
import logging
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import sync_playwright
from sqlalchemy import insert

from jobqueue import JobQueue, cron, fixed
from jobqueue.cli.commands.top.reader import Reader
from jobqueue.cli.commands.top.screen import Top
from jobqueue.cli.commands.top.verbs import Verbs
from jobqueue.redaction import ShownJobs
from jobqueue.store.schema import CounterKind, counters, history

PICTURE = Path(__file__).parent / "dashboard.png"
TERMINAL, CELLS = Path(__file__).parent / "top.svg", (100, 32)
SIZE = {"width": 1280, "height": 880}
PORT = 8765
HOUR = {
    "default": ("thumbnail", 900, 0),
    "mail": ("send_welcome", 420, 0),
    "crm": ("sync_crm", 130, 40),
}
"""Of each queue: a task, its jobs in a minute, and those that failed since the trouble began."""
TROUBLE = 20  # minutes ago


def shop(url: str, gate: threading.Event) -> JobQueue:
    """Tasks of a shop; `gate` holds the long ones until the picture is taken."""
    jobs = JobQueue(url)

    @jobs.task
    def thumbnail(picture: int) -> None: ...

    @jobs.task(queue="reports")
    def monthly_report(month: str) -> None:
        gate.wait(60)

    @jobs.task(queue="mail")
    def send_welcome(user: int) -> None: ...

    @jobs.task(queue=jobs.queue("crm", limit=4), max_attempts=1, backoff=fixed(1))
    def sync_crm(customer: int) -> None:
        raise ConnectionError(f"crm.example.com refused customer {customer}")

    @jobs.task(queue="reports", schedule=cron("0 3 * * *", tz="Europe/Zurich"))
    def nightly_report() -> None: ...

    jobs.enqueue_many([thumbnail.call(n) for n in range(40)])
    jobs.enqueue_many([sync_crm.call(n) for n in range(7100, 7160)])
    with JobQueue(url) as newer:  # A program that no worker here knows yet.

        @newer.task(queue="billing")
        def charge(order: int) -> None: ...

        charge.enqueue(7)
    return jobs


def write_hour(jobs: JobQueue) -> None:
    """Write the counts of an hour, as workers would have."""
    random.seed(4)
    this = datetime.now(UTC).replace(second=0, microsecond=0)
    rows, figures = [], []
    for back in range(1, 61):
        minute = this - timedelta(minutes=back)
        waiting = 30 + 4 * max(0, TROUBLE - back) + random.randrange(12)
        figures.append(
            {"minute": minute, "worker": "shop", "task": "", "waiting": waiting, "wait_p95": 2.1}
        )
        for queue, (task, usual, failing) in HOUR.items():
            succeeded = int(usual * (1 + 0.25 * math.sin(back / 9) + 0.1 * random.random()))
            failed = failing + random.randrange(5) if failing and back <= TROUBLE else 0
            rows.append(
                {
                    **{"minute": minute, "queue": queue, "task": task},
                    **{"succeeded": succeeded, "failed": failed, "runs": succeeded + failed},
                    "kind": CounterKind.PERIOD.value,
                }
            )
    with jobs.store.write() as connection:
        connection.execute(insert(counters), rows)
        connection.execute(insert(history), figures)


@contextmanager
def served(url: str) -> Iterator[str]:
    """`jobqueue web`, until the block ends."""
    command = [sys.executable, "-m", "jobqueue", "--url", url, "web", "--port", str(PORT)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        page = f"http://127.0.0.1:{PORT}/"
        for _ in range(100):
            try:
                urllib.request.urlopen(page + "healthz")
                break
            except OSError:
                time.sleep(0.1)
        yield page
        server.terminate()


async def take_terminal(jobs: JobQueue, url: str) -> None:
    """`jobqueue top`, without the fonts that textual's template would load from elsewhere."""
    shown = ShownJobs(jobs.store)
    app = Top(Reader(shown).read, Verbs(shown, list), str, url, 2.0)
    async with app.run_test(size=CELLS) as pilot:
        await pilot.pause(2)
        svg = app.export_screenshot(title="jobqueue top", simplify=True)
    alone = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    TERMINAL.write_text(re.sub(r"[ \t]+$", "", alone, flags=re.MULTILINE), "utf-8")


def main() -> None:
    logging.getLogger("jobqueue").setLevel(logging.CRITICAL)  # Jobs fail on purpose.
    gate = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # So that the page shows a short name of the file.
        url = "sqlite:///shop.db"
        with shop(url, gate) as jobs, jobs.worker(concurrency=4, poll=0.05):
            jobs.pause("mail")
            jobs.enqueue_many([jobs.registry["send_welcome"].call(n) for n in range(31)])
            write_hour(jobs)
            report = jobs.registry["monthly_report"]
            time.sleep(3)  # Until the others have ended.
            jobs.enqueue_many([report.call(f"2026-{month:02}") for month in range(6, 13)])
            time.sleep(1)
            asyncio.run(take_terminal(jobs, url))
            with served(url) as page, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
                tab = browser.new_page(viewport=SIZE, color_scheme="light")
                tab.goto(page)
                tab.wait_for_timeout(2500)
                tab.locator(".u-over").hover(position={"x": 820, "y": 60})
                tab.screenshot(path=PICTURE)
                browser.close()
            gate.set()
    for picture in (PICTURE, TERMINAL):
        print(f"{picture.name}: {picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
