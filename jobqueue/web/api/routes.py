"""The API of one queue: all its operations, and what follows from their table."""

from collections.abc import Sequence
from functools import cached_property, partial
from urllib.parse import quote

from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from jobqueue import prometheus
from jobqueue.errors import JobQueueError
from jobqueue.known_names import all_names
from jobqueue.queue import JobQueue
from jobqueue.redaction import ShownJobs
from jobqueue.store.database import Store
from jobqueue.store.pool import WaitPolicy
from jobqueue.tasks import Registry
from jobqueue.web.api.figures import FigureOperations
from jobqueue.web.api.job_verbs import JobVerbs
from jobqueue.web.api.jobs import JobOperations
from jobqueue.web.api.openapi import document, index
from jobqueue.web.api.operation import Asked, Operations, get, routes_of
from jobqueue.web.api.schedules import ScheduleOperations
from jobqueue.web.api.schemas import TEXT, an_object, array
from jobqueue.web.api.switches import SwitchOperations
from jobqueue.web.concurrency import CachedCall, Pools, Threads
from jobqueue.web.responses import JSON, HTTPError, database_unavailable, json_response, to_bytes

READERS, WRITERS, BULK_WRITERS = 4, 4, 2
"""Threads."""
PROBE_TIMEOUT = 2.0
"""Seconds that /readyz and /metrics wait for the database."""


class Api:
    """The operations of one queue."""

    def __init__(self, jobs: JobQueue, registry: Registry, open_names: Sequence[str] = ()) -> None:
        # Connections that are open would go on in a file that was moved, and show it as if it were
        # in its place.
        sizes, first = (READERS, WRITERS, BULK_WRITERS), jobs.store.require_place
        self.threads = Pools(*(Threads(most, first) for most in sizes))
        names = partial(all_names, registry, jobs.store)
        shown = ShownJobs(jobs.store, registry)
        of_jobs = JobOperations(jobs, shown, registry, names, self.threads.reads)
        self.waiter = of_jobs.waiter
        parts = (
            of_jobs,
            JobVerbs(jobs, shown, names),
            SwitchOperations(jobs, names),
            ScheduleOperations(jobs.schedules, shown.redaction, registry, of_jobs.written),
            FigureOperations(jobs, registry, open_names),
            ServerOperations(jobs, self),
        )
        self.operations = [each for part in parts for each in part.operations()]

    def routes(self) -> list[Route]:
        """Return the routes."""
        return routes_of(self.operations, self.threads)


class ServerOperations(Operations):
    """What says how the server is, and what it can do."""

    def __init__(self, jobs: JobQueue, api: Api) -> None:
        self._store, self._api = jobs.store, api
        # Not by the threads of the other operations, which may all be busy.
        self._schema_check = CachedCall(self._check_schema)
        collector = prometheus.Collector(jobs)
        self._exposition = CachedCall(lambda: prometheus.exposition(collector.collect()))

    @get(
        "/api",
        "these operations, a line each",
        an_object(openapi=TEXT, operations=array(an_object(method=TEXT, path=TEXT, summary=TEXT))),
    )
    async def _index(self, asked: Asked) -> Response:
        root = quote(asked.request.scope.get("root_path", ""))
        return json_response(index(self._api.operations, root))

    @get("/openapi.json", "these operations as an OpenAPI 3.1 document", {"type": "object"})
    async def _openapi(self, _: Asked) -> Response:
        return Response(self._document, media_type=JSON)

    @cached_property
    def _document(self) -> bytes:
        return to_bytes(document(self._api.operations)) + b"\n"

    @get("/healthz", "the process is alive", an_object(status=TEXT), parameters=None)
    async def _alive(self, _: Asked) -> Response:
        return json_response({"status": "alive"})

    @get(
        "/readyz",
        "the database is reachable, and its schema matches",
        an_object(status=TEXT),
        parameters=None,
        refusals=(503,),
    )
    async def _ready(self, _: Asked) -> Response:
        """Answer 200 if the database answers, in its place and with our schema, else 503."""
        try:
            await self._schema_check.get(PROBE_TIMEOUT)
        except JobQueueError as refused:
            raise HTTPError(503, str(refused), more={"status": "not ready"}) from None
        except (TimeoutError, SQLAlchemyError, OSError):
            error = database_unavailable(writes=False)
            raise HTTPError(503, str(error), more={"status": "not ready"}) from None
        return json_response({"status": "ready"})

    @get("/metrics", "Prometheus' text format", TEXT, parameters=None, media="text/plain")
    async def _metrics(self, _: Asked) -> Response:
        """Answer in Prometheus' text format, at most a second old."""
        try:
            text = await self._exposition.get(PROBE_TIMEOUT)
        except TimeoutError:
            text = prometheus.exposition(prometheus.unreachable())
        return PlainTextResponse(text, media_type=prometheus.CONTENT_TYPE)

    def _check_schema(self) -> None:
        self._store.require_place()  # Those that are open go on in a file that was moved.
        # A new connection each time: the pool may be exhausted, and that an old connection is open
        # does not show that the server accepts new ones.
        probe = Store(self._store.url, connections=1, wait_policy=WaitPolicy(0))
        try:
            probe.require_schema(makes=False)
        finally:
            probe.close()
