"""Operations on jobs: enqueue, list, read, and wait for their end."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from jobqueue import options, text_parsing
from jobqueue.errors import JobNotFound, JobQueueError, invalid
from jobqueue.job import Job
from jobqueue.job_search import filter_of
from jobqueue.json_forms import job_json, with_attempts
from jobqueue.known_names import unknown_in
from jobqueue.queue import JobQueue
from jobqueue.records import JobFilter, JobRecord
from jobqueue.redaction import ShownJobs
from jobqueue.states import FINAL, State
from jobqueue.store.job_pages import JobPages
from jobqueue.store.names import Names
from jobqueue.store.why import explain
from jobqueue.tasks import Registry
from jobqueue.web.api.operation import Asked, Operations, Parameter, get, post
from jobqueue.web.api.schemas import JOB_ID, NUMBER, TEXT, array, one_of, ref
from jobqueue.web.concurrency import JobWaiter, Threads
from jobqueue.web.requests import BATCH_BYTES_MAX, calls_of
from jobqueue.web.responses import JSON, json_response, to_bytes

T = TypeVar("T")

LIST_DEFAULT, LIST_MAX = 50, 1000
PAGE_JOBS = 20
"""How many jobs of a list are in memory at once."""
WAIT_MAX = 60.0
NOTICE_HEADER = "jobqueue-notice"
"""The header for notes that the command line prints to stderr."""

LIMIT = Parameter(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": LIST_MAX, "default": LIST_DEFAULT},
    "How many at most.",
)
BEFORE = Parameter("before", JOB_ID, "With smaller ids: the next page. See the header `Link`.")
SINCE = Parameter("since", TEXT, "Not older: `2h`, or an instant with a time zone.")
FILTER = (
    Parameter("state", one_of(*State), "Jobs in this state."),
    Parameter("task", TEXT, "Jobs of this task."),
    Parameter("queue", TEXT, "Jobs in this queue."),
    Parameter("tag", TEXT, "Jobs with this tag."),
    SINCE,
    Parameter("error", TEXT, "Jobs with this error: an id of `/api/errors`, or its beginning."),
    Parameter("q", TEXT, "An id, a unique key, or the beginning of a task's name."),
)
WAIT = Parameter(
    "wait",
    NUMBER | {"minimum": 0, "maximum": WAIT_MAX},
    "Seconds for which the answer waits for the end of the job.",
)


@dataclass(eq=False)
class JobOperations(Operations):
    """What can be done with the jobs of one queue."""

    _queue: JobQueue
    _jobs: ShownJobs
    _registry: Registry
    _names: Callable[[], Names]
    _reads: Threads

    def __post_init__(self) -> None:
        self._pages = JobPages(self._jobs)
        self.waiter = JobWaiter(self._reads, self._ended)

    @post(
        "/api/jobs",
        "the enqueued job; for a list, the number of jobs and their ids",
        {"anyOf": [ref("EnqueuedJob"), ref("EnqueuedId"), ref("EnqueuedBatch")]},
        body={"anyOf": [ref("Call"), array(ref("Call"))]},
        body_max=BATCH_BYTES_MAX,
        status=202,
        refusals=(503,),
        verb="enqueue",
    )
    def _enqueue(self, asked: Asked) -> Response:
        """Enqueue one job, or a list of them in one transaction."""
        calls, is_batch = calls_of(self._registry, asked.body)
        # wait=False, because waiting clients would occupy all threads.
        jobs = self._queue.enqueue_many(calls, wait=False)
        if is_batch:
            existing = sum(not job.created for job in jobs)
            ids = [job.id for job in jobs]
            return json_response(
                {"enqueued": len(ids) - existing, "existing": existing, "ids": ids}, status=202
            )
        location = asked.location(f"/api/jobs/{jobs[0].id}")
        return json_response(self.written(jobs[0]), 202, location)

    @get(
        "/api/jobs",
        "an array of jobs, newest first; the header `Link` leads to the next page",
        array(ref("Job")),
        parameters=(*FILTER, LIMIT, BEFORE),
        notes=True,
    )
    async def _list_jobs(self, asked: Asked) -> Response:
        wanted = await self._reads(self._wanted, asked.given)
        size, below = asked.whole(LIMIT), asked.whole(BEFORE)
        ids, more = await self._newest(asked.request, wanted, size, below)
        headers = asked.next_page(before=ids[-1]) if more else {}
        if not ids:
            headers |= await self._reads(notice, wanted, self._names)
        # Of HEAD no body is sent; with one of its own the header would have another length.
        shown = () if asked.request.method == "HEAD" else tuple(ids)
        found = self._jobs.find(JobFilter(ids=shown), page=PAGE_JOBS)
        return StreamingResponse(self._array(found), headers=headers, media_type=JSON)

    async def _newest(
        self, request: Request, wanted: JobFilter, size: int, below: int | None
    ) -> tuple[list[int], bool]:
        """Return the newest ids, below one, and whether there may be more.

        It looks through all rows if need be, part by part: no snapshot stays open, others get the
        thread in between, and for a client that has gone it stops. Raises ClientDisconnect.
        """
        found: list[int] = []
        after = None if below is None else str(below)
        gone = asyncio.ensure_future(_gone(request))
        try:
            while True:
                ids, after = await self._reads(self._pages.newest, wanted, size - len(found), after)
                found += ids
                if after is None or len(found) == size:
                    return found, after is not None
                if gone.done():
                    raise ClientDisconnect
        finally:
            gone.cancel()

    def _wanted(self, given: Mapping[str, str]) -> JobFilter:
        for name, value in given.items():
            if not value:
                raise invalid(name, "it is empty", value)
        wanted = searched(given, self._names, self._pages)
        return replace(wanted, since=text_parsing.since(given.get(SINCE.name)))

    async def _array(self, found: Iterator[JobRecord]) -> AsyncIterator[bytes]:
        """Yield a JSON array, one page of jobs after the other."""
        opening, page = b"[", await self._reads(_page, found)
        while page:
            yield opening + b",\n".join(page)
            opening = b",\n"
            page = await self._reads(_page, found) if len(page) == PAGE_JOBS else []
        yield b"[]\n" if opening == b"[" else b"]\n"

    def written(self, job: Job[Any]) -> dict[str, Any]:
        """Return the job that was enqueued. It is committed: a failing read is not an error now."""
        try:
            return job_json(self._jobs.redaction(job.record())) | {"created": job.created}
        except (SQLAlchemyError, JobQueueError):
            return {"id": job.id, "created": job.created}

    @get(
        "/api/jobs/{id}",
        "the job with its attempts; `?wait=10` holds until it is final",
        ref("JobWithAttempts"),
        parameters=(WAIT,),
        refusals=(404,),
    )
    async def _get_job(self, asked: Asked) -> dict[str, Any]:
        """Answer with a job and its attempts; `?wait=10` first waits up to 10 s for its end."""
        id_, wait = text_parsing.job_id(asked.given["id"]), asked.given.get("wait")
        limit = 0.0 if wait is None else options.seconds(wait, "wait", most=WAIT_MAX)
        record = await self._reads(self._get, id_)
        if limit and record.state not in FINAL:
            await self._wait(asked.request, id_, limit)
            record = await self._reads(self._get, id_)
        return await self._reads(with_attempts, self._jobs, record)

    async def _wait(self, request: Request, id_: int, limit: float) -> None:
        """Wait for the end of a job, while the client is connected."""
        ended = self.waiter.wait_for(id_)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({ended, gone}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            self.waiter.stop_waiting(id_, ended)

    @get(
        "/api/jobs/{id}/why",
        "why it is where it is, and what to do",
        ref("Explanation"),
        refusals=(404,),
    )
    def _explain_job(self, asked: Asked) -> dict[str, Any]:
        id_ = text_parsing.job_id(asked.given["id"])
        return _there(id_, explain(self._jobs, id_)).to_json()

    def _get(self, id_: int) -> JobRecord:
        return _there(id_, self._jobs.get(id_))

    def _ended(self, ids: list[int]) -> list[int]:
        states = self._jobs.states(ids)
        return [id_ for id_ in ids if states.get(id_, State.CANCELLED) in FINAL]


def _there(id_: int, found: T | None) -> T:
    """Return what was found of a job. Raises JobNotFound."""
    if found is None:
        raise JobNotFound(f"there is no job {id_} (any more)", field="id", value=id_)
    return found


def searched(given: Mapping[str, str], names: Callable[[], Names], pages: JobPages) -> JobFilter:
    """Return the filter that texts stand for; the names are read where a search needs them."""
    return filter_of(given, names() if given.get("q") else Names(), pages)


def notice(wanted: JobFilter, names: Callable[[], Names]) -> dict[str, str]:
    """Return a header that names an unknown task, queue or tag of a filter without matches."""
    if (wanted.task, wanted.queue, wanted.tag) == (None, None, None):
        return {}
    error = unknown_in(wanted, names())
    return {} if error is None else {NOTICE_HEADER: str(error)}


async def _gone(request: Request) -> None:
    message = await request.receive()  # The body, which is ignored.
    while message["type"] != "http.disconnect":
        message = await request.receive()


def _page(found: Iterator[JobRecord]) -> list[bytes]:
    return [to_bytes(job_json(job)) for job in itertools.islice(found, PAGE_JOBS)]
