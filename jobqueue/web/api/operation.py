"""An operation of the API, declared once: its route, its checks and its documents follow."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobqueue import options
from jobqueue.web.api.schemas import Schema
from jobqueue.web.concurrency import Pools
from jobqueue.web.requests import BODY_MAX, client_of, has_body, object_of, query_of, read_body
from jobqueue.web.responses import JSON, json_response
from jobqueue.web.rights import Rights
from jobqueue.web.security import require_json


class Parameter(NamedTuple):
    """A parameter of the URL."""

    name: str
    schema: Schema
    description: str


class Asked(NamedTuple):
    """A request to an operation: its parameters and its body, and who asks."""

    request: Request
    given: Mapping[str, str]
    """The parameters of the path and of the URL."""
    body: bytes
    """Empty where there is none."""
    by: str

    def whole(self, of: Parameter) -> Any:
        """Return an integer within the bounds of its schema, else its default; maybe None."""
        text, schema = self.given.get(of.name), of.schema
        if text is None:
            return schema.get("default")
        return options.whole(options.integer(text), of.name, schema["minimum"], schema["maximum"])

    def next_page(self, **changed: object) -> dict[str, str]:
        """Return the header that leads to the next page: this URL with other parameters."""
        query = urlencode({**self.request.query_params, **changed})
        return {"Link": f'<{quote(self.request.scope["path"])}?{query}>; rel="next"'}

    def location(self, path: str) -> dict[str, str]:
        """Return the header that names where something is, by its path below the mount."""
        return {"Location": quote(self.request.scope.get("root_path", "") + path)}


@dataclass(frozen=True)
class Operation:
    """What one method of one path does.

    `work` returns a JSON value or a response, for an `Asked`. A coroutine function runs in the
    event loop, any other in a thread. Raises HTTPError or JobQueueError.
    """

    id: str
    """A name for generated clients."""
    method: str
    path: str
    summary: str
    work: Callable[[Asked], Any]
    answer: Schema
    parameters: tuple[Parameter, ...] | None = ()
    """Those of the URL; None: any, and all are ignored."""
    body: Schema | None = None
    needs_body: bool = True
    """False if the body may be left out."""
    body_max: int = BODY_MAX
    """The most bytes of it that are read."""
    status: int = 200
    refusals: tuple[int, ...] = ()
    """Statuses beside 400, and 413 and 415 for a body."""
    verb: str | None = None
    """What `authorize` has to allow; None: it changes nothing."""
    is_bulk: bool = False
    """True if it changes any number of jobs: it has threads of its own."""
    notes: bool = False
    """True if its answer may have the header Jobqueue-Notice."""
    media: str = JSON

    @property
    def path_parameters(self) -> list[str]:
        """The names in the braces of the path."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def statuses(self) -> list[int]:
        """The statuses of its answers, except those that every operation has."""
        of_input = () if self.parameters is None else (400,)
        of_body = () if self.body is None else (413, 415)
        return sorted({self.status, *of_input, *of_body, *self.refusals})


Work = TypeVar("Work", bound=Callable[[Any, Asked], Any])


def operation(
    method: str, path: str, summary: str, answer: Schema, **more: Any
) -> Callable[[Work], Work]:
    """Declare what a method of `Operations` does; its name, without the _, is the id."""

    def declare(work: Work) -> Work:
        id_ = work.__name__.lstrip("_")
        vars(work)["operation"] = partial(
            Operation, id_, method, path, summary, answer=answer, **more
        )
        return work

    return declare


get, post = partial(operation, "GET"), partial(operation, "POST")


class Operations:
    """Operations that are methods of a class."""

    def operations(self) -> Iterator[Operation]:
        """Yield them in the order of the methods."""
        for name, member in vars(type(self)).items():
            if (declared := getattr(member, "operation", None)) is not None:
                yield declared(work=getattr(self, name))


def routes_of(operations: Iterable[Operation], pools: Pools) -> list[Route]:
    """Return a route for each path: of two with one path, a 405 would name one's methods."""
    by_path: dict[str, dict[str, Operation]] = {}
    for each in operations:
        by_path.setdefault(each.path, {})[each.method] = each
    return [
        Route(path, partial(_answer, methods, pools), methods=[*methods])
        for path, methods in by_path.items()
    ]


async def _answer(methods: Mapping[str, Operation], pools: Pools, request: Request) -> Response:
    operation = methods["GET" if request.method == "HEAD" else request.method]
    asked = await _asked(operation, request)
    if inspect.iscoroutinefunction(operation.work):
        result = await operation.work(asked)
    else:
        writes = pools.bulk if operation.is_bulk else pools.writes
        threads = pools.reads if operation.verb is None else writes
        result = await threads(operation.work, asked)
    return result if isinstance(result, Response) else json_response(result, operation.status)


async def _asked(operation: Operation, request: Request) -> Asked:
    """Check the rights, the parameters and the type of the body. Raises HTTPError, InvalidOption.

    Every operation passes here, so that none can forget to ask for its rights.
    """
    if operation.verb is not None:
        rights: Rights = request.scope["jobqueue.rights"]
        rights.require(operation.verb)
    given: dict[str, str] = {}
    if operation.parameters is not None:
        given = query_of(request, *(each.name for each in operation.parameters))
    body, sent = b"", has_body(request)
    if operation.body is not None and (sent or operation.needs_body):
        body = await read_body(request, operation.body_max)
    elif operation.verb is not None:
        require_json(request.headers.get("content-type"), has_body=sent)
        # What is not taken must not be ignored: {"dry_run": true} to a verb that has none.
        object_of(await read_body(request, operation.body_max) if sent else b"")
    return Asked(request, given | request.path_params, body, client_of(request))
