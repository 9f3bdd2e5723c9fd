"""The app that the files of this folder run: put your own in its place."""

import time

from jobqueue import JobQueue, current_job, every

jobs = JobQueue()  # $JOBQUEUE_URL names the database.
mail = jobs.queue("mail", max_pending=10_000, when_full="reject")


@jobs.task(queue=mail, timeout=30, redact=("subject",))
def send(to: str, subject: str = "Hello") -> str:
    """A short job."""
    return f"{len(subject)} characters to {to}"


@jobs.task
def report(pages: int, seconds: float = 1.0) -> int:
    """A long job, which says how far it is and stops where it is asked to."""
    for page in range(pages):
        current_job().check()
        current_job().progress(page / pages, f"page {page + 1} of {pages}")
        time.sleep(seconds)
    return pages


@jobs.task(schedule=every(minutes=10))
def clean_up() -> None:
    """A job of a schedule."""
