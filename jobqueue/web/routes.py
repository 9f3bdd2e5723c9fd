"""The routes: the operations of the command line, by the same rules."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from jobqueue import options, wire
from jobqueue.errors import JobNotFound, JobQueueError
from jobqueue.job import Job
from jobqueue.known_names import names_of, unknown_in
from jobqueue.queue import JobQueue
from jobqueue.records import JobFilter, JobRecord, Refusal
from jobqueue.redaction import ShownJobs
from jobqueue.states import FINAL, State
from jobqueue.store.audit import Action, Audit, target_of
from jobqueue.store.database import Store
from jobqueue.store.doctor import examine
from jobqueue.store.error_groups import GROUPS_MAX, ErrorGroups
from jobqueue.store.jobs import Jobs
from jobqueue.store.names import names_in_use
from jobqueue.store.pool import Patience
from jobqueue.store.stats import Monitor
from jobqueue.store.why import explain
from jobqueue.tasks import Registry
from jobqueue.web import metrics
from jobqueue.web.concurrency import CachedCall, JobWaiter, Threads
from jobqueue.web.queue_routes import QueueRoutes
from jobqueue.web.requests import (
    asks_for,
    calls_of,
    changes_of,
    client_of,
    has_body,
    query_of,
    read_body,
)
from jobqueue.web.responses import JSON, HTTPError, database_unavailable, json_response, to_bytes
from jobqueue.web.security import require_json
from jobqueue.wire import changes, job_json, with_attempts

T = TypeVar("T")

READERS, WRITERS = 4, 4
"""Threads. Reads have their own, so that a slow list does not delay an enqueue."""

LIST_DEFAULT, LIST_MAX = 50, 200
PAGE_JOBS = 20
"""How many jobs of a list are in memory at once."""
WAIT_MAX = 60.0
PROBE_TIMEOUT = 2.0
"""Seconds that /readyz and /metrics wait for the database."""
NOTICE_HEADER = "jobqueue-notice"
"""The header for notes that the command line prints to stderr."""

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]
Verb = Callable[[Jobs, JobFilter, Action], tuple[list[int], list[Refusal]]]


class Api:
    """The endpoints of one queue."""

    def __init__(self, jobs: JobQueue, registry: Registry, open_names: Sequence[str] = ()) -> None:
        self._queue = jobs
        self._open_names = open_names
        self._jobs = ShownJobs(jobs.store, registry)
        self._monitor = Monitor(jobs.store)
        self._error_groups = ErrorGroups(jobs.store)
        self.reads, self.writes = Threads(READERS), Threads(WRITERS)
        self._tasks = wire.Tasks(registry)
        self._names = lambda: names_of(registry) | names_in_use(jobs.store)
        self._switches = QueueRoutes(jobs, self._names, self.reads, self.writes)
        self._waiter = JobWaiter(self.reads, self._ended)
        # Not by the threads above, which may all be busy.
        self._ready = CachedCall(self._check_schema)
        self._metrics = CachedCall(lambda: metrics.text(self._monitor.stats()))

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/jobs", self.jobs, methods=["GET", "POST"]),
            Route("/api/jobs/{id}", self.job),
            Route("/api/jobs/{id}/why", self.why),
            Route("/api/jobs/{id}/cancel", self.cancel, methods=["POST"]),
            Route("/api/jobs/{id}/retry", self.retry, methods=["POST"]),
            Route("/api/jobs/{id}/update", self.update, methods=["POST"]),
            Route("/api/queues", self._answers(self._monitor.queues)),
            *self._switches.routes(),
            Route("/api/schedules", self._answers(self._schedules)),
            *(
                Route(f"/api/schedules/{{name}}/{verb}", endpoint, methods=["POST"])
                for verb, endpoint in self._schedule_verbs()
            ),
            Route("/api/workers", self._answers(self._workers)),
            Route("/api/log", self.log),
            Route("/api/errors", self.errors),
            Route("/api/doctor", self.doctor),
            Route("/api/stats", self._answers(self._monitor.stats)),
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
        ]

    def release(self) -> None:
        """Answer all requests that wait for a job."""
        self._waiter.release()

    async def jobs(self, request: Request) -> Any:
        """Dispatch by method: of two routes with one path, a 405 would name one's methods only."""
        return await (self._enqueue if request.method == "POST" else self._list)(request)

    async def _list(self, request: Request) -> Any:
        given = query_of(request, "state", "task", "queue", "tag", "since", "error", "limit")
        state, *named = (given.get(name) for name in ("state", "task", "queue", "tag", "since"))
        error = given.get("error")
        if error is not None:
            error = await self.reads(self._error_groups.resolve, error)
        wanted = wire.a_filter(state, *named, error=error)
        limit = wire.whole(given.get("limit", str(LIST_DEFAULT)))
        most = options.whole(limit, "limit", 1, LIST_MAX)
        found = self._jobs.find(wanted, most, PAGE_JOBS)
        first = await self.reads(_page, found)
        headers = {} if first else await self._notice(wanted)
        if request.method == "HEAD":
            return json_response([], headers=headers)
        body = self._array(first, found)
        return StreamingResponse(body, headers=headers, media_type=JSON)

    async def _array(self, page: list[bytes], found: Iterator[JobRecord]) -> AsyncIterator[bytes]:
        """Yield a JSON array, one page of jobs after the other."""
        opening = b"["
        while page:
            yield opening + b",\n".join(page)
            opening = b",\n"
            page = await self.reads(_page, found) if len(page) == PAGE_JOBS else []
        yield b"[]\n" if opening == b"[" else b"]\n"

    async def _notice(self, wanted: JobFilter) -> dict[str, str]:
        """Return a header that names an unknown task, queue or tag of a filter without matches."""
        if (wanted.task, wanted.queue, wanted.tag) == (None, None, None):
            return {}
        stranger = unknown_in(wanted, await self.reads(self._names))
        return {} if stranger is None else {NOTICE_HEADER: str(stranger)}

    async def _enqueue(self, request: Request) -> Response:
        """Enqueue one job, or a list of them in one transaction."""
        query_of(request)
        body = await read_body(request)
        calls, is_batch = await self.writes(calls_of, self._tasks, body)
        # wait=False, because waiting clients would occupy all threads.
        jobs = await self.writes(self._queue.enqueue_many, calls, wait=False)
        if is_batch:
            existing = sum(not job.created for job in jobs)
            ids = [job.id for job in jobs]
            return json_response(
                {"enqueued": len(ids) - existing, "existing": existing, "ids": ids}, status=202
            )
        written = await self.writes(self._written, jobs[0])
        return json_response(written, 202, {"Location": f"{request.url.path}/{jobs[0].id}"})

    async def job(self, request: Request) -> Response:
        """Answer with a job and its attempts; `?wait=10` first waits up to 10 s for its end."""
        id_ = wire.job_id(request.path_params["id"])
        wait = query_of(request, "wait").get("wait")
        limit = 0.0 if wait is None else options.seconds(wait, "wait", most=WAIT_MAX)
        record = await self.reads(self._get, id_)
        if limit and record.state not in FINAL:
            await self._wait(request, id_, limit)
            record = await self.reads(self._get, id_)
        return json_response(await self.reads(with_attempts, self._jobs, record))

    async def why(self, request: Request) -> Response:
        """Answer why a job is where it is, with what to do about it."""
        query_of(request)
        id_ = wire.job_id(request.path_params["id"])
        return json_response(await self.reads(self._explain, id_))

    async def _wait(self, request: Request, id_: int, limit: float) -> None:
        """Wait for the end of a job, while the client is connected."""
        ended = self._waiter.wait_for(id_)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({ended, gone}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            self._waiter.stop_waiting(id_, ended)

    async def cancel(self, request: Request) -> Response:
        """Cancel a job that waits, or request a running one to stop."""
        return await self._change(request, "cancel", Jobs.cancel)

    async def retry(self, request: Request) -> Response:
        """Run a final job again with as many attempts as at first, or a scheduled one now.

        A job that has succeeded needs the body `{"succeeded": true}`.
        """
        asked = has_body(request) and asks_for("succeeded", await read_body(request))
        rerun = partial(Jobs.rerun, succeeded=asked, ask='{"succeeded": true}')
        response = await self._change(request, "retry", rerun)
        await self.writes(self._queue.wake_workers)
        return response

    async def update(self, request: Request) -> Response:
        """Change a job that waits: `{"priority": 1, "queue": "mail", "at": "…", "tags": []}`."""
        new = changes_of(await read_body(request))
        change: Verb = lambda jobs, wanted, action: jobs.update(wanted, new, action)  # noqa: E731
        response = await self._change(request, "update", change, set=new.to_json())
        await self.writes(self._queue.wake_workers)
        return response

    async def _change(self, request: Request, name: str, verb: Verb, **more: Any) -> Response:
        query_of(request)
        require_json(request.headers.get("content-type"), has_body=has_body(request))
        id_ = wire.job_id(request.path_params["id"])
        wanted = JobFilter(ids=(id_,))
        action = Action(client_of(request), name, target_of(wanted) | more)
        changed, refused = await self.writes(verb, self._jobs, wanted, action)
        answer = changes(changed, refused)
        for refusal in refused:
            status = 404 if refusal.state is None else 409
            raise HTTPError(
                status, f"job {id_}: {refusal.reason}", field="id", value=id_, more=answer
            )
        return json_response(answer)

    def _answers(self, ask: Callable[[], Any]) -> Endpoint:
        """Return an endpoint that answers with what a command prints with --json."""

        async def endpoint(request: Request) -> Response:
            query_of(request)
            return json_response(await self.reads(ask))

        return endpoint

    async def log(self, request: Request) -> Response:
        """Answer what operators did, newest first."""
        given = query_of(request, "since", "limit")
        since = wire.since(given.get("since"))
        limit = options.whole(
            wire.whole(given.get("limit", str(LIST_DEFAULT))), "limit", 1, LIST_MAX
        )
        return json_response(await self.reads(Audit(self._queue.store).find, limit, since))

    async def errors(self, request: Request) -> Response:
        """Answer errors by task, type and place, the most frequent first."""
        given = query_of(request, "since", "task", "limit")
        task = wire.a_filter(None, given.get("task"), None, None).task
        limit = options.whole(
            wire.whole(given.get("limit", str(LIST_DEFAULT))), "limit", 1, GROUPS_MAX
        )
        found = await self.reads(self._error_groups.find, given.get("since", "7d"), task, limit)
        return json_response([group.to_json() for group in found])

    async def doctor(self, request: Request) -> Response:
        """Answer what is wrong or will be, with what to do."""
        query_of(request)
        diagnosis = await self.reads(examine, self._queue.store, self._open_names)
        return json_response(diagnosis.to_json())

    def _schedules(self) -> list[dict[str, Any]]:
        shown = self._jobs.redaction.schedule
        return [shown(schedule.to_json()) for schedule in self._queue.schedules]

    def _written(self, job: Job[Any]) -> dict[str, Any]:
        """Return the job that was enqueued. It is committed: a failing read is not an error now."""
        try:
            return job_json(self._jobs.redaction(job.record())) | {"created": job.created}
        except (SQLAlchemyError, JobQueueError):
            return {"id": job.id, "created": job.created}

    def _schedule_verbs(self) -> Iterator[tuple[str, Endpoint]]:
        of = self._queue.schedules.of
        yield "pause", self._changes(lambda name, by: of(by).pause(name, by=by))
        yield "resume", self._changes(lambda name, by: of(by).resume(name))
        yield "reset", self._changes(lambda name, by: of(by).reset(name))
        yield "remove", self._changes(lambda name, by: bool(of(by).remove(name)))
        yield "run", self._run_schedule

    def _changes(self, change: Callable[[str, str], bool]) -> Endpoint:
        """Return an endpoint that changes one schedule, and answers how many it has changed."""

        async def endpoint(request: Request) -> Response:
            changed = await self.writes(change, *_of_schedule(request))
            return json_response({"changed": int(changed)})

        return endpoint

    async def _run_schedule(self, request: Request) -> Response:
        """Enqueue the job of a schedule now."""
        name, by = _of_schedule(request)
        job = await self.writes(self._queue.schedules.of(by).run, name)
        return json_response(
            await self.writes(self._written, job), 202, {"Location": f"/api/jobs/{job.id}"}
        )

    def _workers(self) -> list[dict[str, Any]]:
        rows = self._monitor.workers()
        return [row | {"started_at": row["started_at"].isoformat()} for row in rows]

    async def healthz(self, _request: Request) -> Response:
        """Answer 200: this process is alive."""
        return json_response({"status": "alive"})

    async def readyz(self, _request: Request) -> Response:
        """Answer 200 if the database answers and has this version's schema, else 503."""
        try:
            await self._ready.get(PROBE_TIMEOUT)
        except JobQueueError as refused:
            raise HTTPError(503, str(refused), more={"status": "not ready"}) from None
        except (TimeoutError, SQLAlchemyError, OSError):
            error = database_unavailable(writes=False)
            raise HTTPError(503, str(error), more={"status": "not ready"}) from None
        return json_response({"status": "ready"})

    async def metrics(self, _request: Request) -> Response:
        """Answer in Prometheus' text format, at most a second old."""
        try:
            text = await self._metrics.get(PROBE_TIMEOUT)
        except (TimeoutError, SQLAlchemyError, JobQueueError, OSError):
            text = metrics.unreachable()
        return PlainTextResponse(text, headers={"Content-Type": metrics.CONTENT_TYPE})

    def _check_schema(self) -> None:
        # A new connection each time: the pool may be exhausted, and that an old connection is open
        # does not show that the server accepts new ones.
        probe = Store(self._queue.store.url, connections=1, patience=Patience(0))
        try:
            probe.require_schema(makes=False)
        finally:
            probe.close()

    def _get(self, id_: int) -> JobRecord:
        return _there(id_, self._jobs.get(id_))

    def _explain(self, id_: int) -> dict[str, Any]:
        return _there(id_, explain(self._jobs, id_)).to_json()

    def _ended(self, ids: list[int]) -> list[int]:
        states = self._jobs.states(ids)
        return [id_ for id_ in ids if states.get(id_, State.CANCELLED) in FINAL]


def _there(id_: int, found: T | None) -> T:
    """Return what was found of a job. Raises JobNotFound."""
    if found is None:
        raise JobNotFound(f"there is no job {id_} (any more)", field="id", value=id_)
    return found


def _of_schedule(request: Request) -> tuple[str, str]:
    """Return the name of the schedule that a request is about, and who asks."""
    query_of(request)
    require_json(request.headers.get("content-type"), has_body=has_body(request))
    return request.path_params["name"], client_of(request)


async def _gone(request: Request) -> None:
    message = await request.receive()  # The body, which is ignored.
    while message["type"] != "http.disconnect":
        message = await request.receive()


def _page(found: Iterator[JobRecord]) -> list[bytes]:
    return [to_bytes(job_json(job)) for job in itertools.islice(found, PAGE_JOBS)]
