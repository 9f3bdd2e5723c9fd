"""The routes of switches: what `jobqueue queues`, `pause` and `resume` change, by their rules."""

from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobqueue import options
from jobqueue.bulk_verbs import DryRun
from jobqueue.errors import InvalidOption
from jobqueue.known_names import unknown
from jobqueue.queue import JobQueue
from jobqueue.queue_switches import Rate, check_limit
from jobqueue.records import JobFilter
from jobqueue.states import WAITING
from jobqueue.store.audit import Action
from jobqueue.store.jobs import Jobs
from jobqueue.store.names import Names
from jobqueue.store.pauses import Pauses
from jobqueue.store.queue_switches import Switchboard
from jobqueue.store.schema import PauseKind
from jobqueue.store.stats import Monitor
from jobqueue.web.concurrency import Threads
from jobqueue.web.requests import asks_for, client_of, has_body, query_of, read_body, switch_of
from jobqueue.web.responses import HTTPError, json_response
from jobqueue.web.security import require_json

Change = Callable[[str, str, bytes], bool]
"""Changes a queue for a client by the body of its request; True if something has changed."""


class QueueRoutes:
    """The endpoints that change the switches of one queue, or pause a task or a tag."""

    def __init__(
        self, jobs: JobQueue, names: Callable[[], Names], reads: Threads, writes: Threads
    ) -> None:
        self._monitor = Monitor(jobs.store)
        self._jobs = Jobs(jobs.store)
        self._switchboard = Switchboard(jobs.store)
        self._pauses = Pauses(jobs.store)
        self._wake_workers = jobs.wake_workers
        self._names, self._reads, self._writes = names, reads, writes

    def routes(self) -> list[Route]:
        """Return the routes."""
        verbs: dict[str, Callable[[Request], Coroutine[Any, Any, Response]]] = {
            "pause": self._changes(
                lambda queue, by, _: self._monitor.pause(queue, _action(by, "pause", queue))
            ),
            "resume": self._changes(
                lambda queue, by, _: self._monitor.resume(queue, _action(by, "resume", queue))
            ),
            "limit": self._changes(self._limit, takes_body=True),
            "rate": self._changes(self._rate, takes_body=True),
            "fair": self._changes(self._fair, takes_body=True),
            "purge": self.purge,
        }
        return [
            Route(f"/api/queues/{{name}}/{verb}", endpoint, methods=["POST"])
            for verb, endpoint in verbs.items()
        ] + [
            Route(f"/api/{kind}s/{{name}}/{verb}", self._pausing(kind, verb), methods=["POST"])
            for kind in PauseKind
            for verb in ("pause", "resume")
        ]

    def _pausing(
        self, kind: PauseKind, verb: str
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return an endpoint that pauses or resumes a task or a tag."""

        async def endpoint(request: Request) -> Response:
            name = await self._named(request, kind)
            action = Action(client_of(request), verb, {kind.value: name})
            changed = await self._writes(getattr(self._pauses, verb), kind, name, action)
            await self._writes(self._wake_workers)
            return json_response({"changed": int(changed)})

        return endpoint

    def _changes(
        self, change: Change, *, takes_body: bool = False
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return an endpoint that changes a switch, and answers whether it has changed."""

        async def endpoint(request: Request) -> Response:
            queue = await self._named(request, "queue")
            body = await read_body(request) if takes_body else b""
            changed = await self._writes(change, queue, client_of(request), body)
            await self._writes(self._wake_workers)
            return json_response({"changed": int(changed)})

        return endpoint

    def _limit(self, queue: str, by: str, body: bytes) -> bool:
        most = switch_of(body, "limit")["limit"]
        limit = None if most is None else check_limit(most)
        self._switchboard.limit(queue, limit, _action(by, "limit", queue, limit=limit))
        return True

    def _rate(self, queue: str, by: str, body: bytes) -> bool:
        given = switch_of(body, "rate", "burst")
        rate, burst = given["rate"], given.get("burst")
        if rate is None and burst is not None:
            raise InvalidOption("burst: there is no rate to run ahead of", field="burst")
        new = None if rate is None else Rate.of(rate, burst)
        self._switchboard.rate(queue, new, _action(by, "rate", queue, rate=new and str(new)))
        return True

    def _fair(self, queue: str, by: str, body: bytes) -> bool:
        fair = options.flag(switch_of(body, "fair")["fair"], "fair")
        self._switchboard.fair(queue, _action(by, "fair", queue, fair=fair), fair=fair)
        return True

    async def purge(self, request: Request) -> Response:
        """Delete the jobs of a queue that wait; `{"dry_run": true}`: only count them."""
        queue = await self._named(request, "queue")
        if has_body(request) and asks_for("dry_run", await read_body(request)):
            found = await self._reads(DryRun.of, self._jobs, [JobFilter(queue=queue)], WAITING)
            return json_response(found.to_json())
        action = _action(client_of(request), "purge", queue)
        return json_response(
            {"deleted": await self._writes(self._switchboard.purge, queue, action)}
        )

    async def _named(self, request: Request, kind: str) -> str:
        """Return the name that a request is about. Raises HTTPError if it is not known."""
        query_of(request)
        require_json(request.headers.get("content-type"), has_body=has_body(request))
        longest = options.QUEUE_LENGTH_MAX if kind == "queue" else options.NAME_LENGTH_MAX
        name = options.name(request.path_params["name"], kind, longest=longest)
        known = await self._reads(self._names)
        stranger = unknown(kind, [name], getattr(known, f"{kind}s"))
        if stranger is not None:
            raise HTTPError(404, str(stranger), field=kind, value=name)
        return name


def _action(by: str, verb: str, queue: str, **more: Any) -> Action:
    return Action(by, verb, {"queue": queue, **more})
