"""structlog's own lines carry the job; that its context is in ours is in tests/cli/test_log_format.py."""

import logging
from contextvars import Context
from typing import Any

import pytest
import structlog

from jobqueue import JobQueue
from jobqueue.logs import ContextFilter, add_job


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("isolation", ["thread", "loop"])
def test_a_line_of_structlog_in_a_handler_names_its_job(jobs: JobQueue, isolation: str) -> None:
    log = structlog.wrap_logger(structlog.ReturnLogger(), processors=[add_job, _given])

    def said() -> list[Any]:
        return [log.info("charged", order=7), log.info("paid", task="mine")]

    async def asaid() -> list[Any]:
        return said()

    task = jobs.task(name="say", queue="mail")(said if isolation == "thread" else asaid)
    job = task.enqueue()
    with jobs.worker(name="till-1", poll=0.05):
        first, second = job.result(timeout=60)
    of_job = {"job": job.id, "task": "say", "queue": "mail", "attempt": 1, "worker": "till-1"}
    assert first == {"event": "charged", "order": 7} | of_job
    assert second == {"event": "paid"} | of_job | {"task": "mine"}
    outside = Context().run(add_job, None, "info", {"event": "outside"})
    assert outside == {"event": "outside"}


def _given(_logger: Any, _method: str, event_dict: Any) -> Any:
    """Hand the line to the logger, which returns it."""
    return (event_dict,), {}


def test_the_filter_adds_what_structlog_has_bound_and_breaks_no_record() -> None:
    record = logging.makeLogRecord({"msg": "%s", "args": ("text",), "order": 1})
    with structlog.contextvars.bound_contextvars(tenant="acme", order=2, args=(), name="mine"):
        assert ContextFilter().filter(record)
    assert (record.getMessage(), record.name) == ("text", None)
    assert (record.tenant, record.order, record.extra_args) == ("acme", 1, ())
