"""JSON responses, and the status of each error. A traceback is never sent."""

import math
import traceback
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import Response

from jobqueue.errors import (
    DatabaseReplaced,
    EnqueueRefused,
    InvalidArguments,
    InvalidOption,
    JobNotFound,
    JobQueueError,
    QueueFull,
    ScheduleNotFound,
    SchemaNewer,
    SchemaOutdated,
    UnknownTask,
    WrongState,
)
from jobqueue.json_forms import error_json
from jobqueue.loggers import get_logger
from jobqueue.printable_text import escape_json

log = get_logger("jobqueue.web")

JSON = "application/json"
RETRY_AFTER = 1
"""Seconds after which a client shall try again when the database did not answer."""

_PHRASES = {404: "there is nothing at this path", 405: "this path does not take that method"}
_DATABASE_ERRORS = (OperationalError, InterfaceError, PoolTimeout)


class HTTPError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        field: str | None = None,
        value: object = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.value = value
        self.headers = dict(headers or {})
        self.more = dict(more or {})
        """Further keys of the answer, beside `error`."""

    def response(self) -> Response:
        """Return the answer."""
        error = error_json(str(self), self.field, self.value)
        return json_response({"error": error, **self.more}, self.status, self.headers)


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response. Its text is ASCII, hence valid whatever a row holds."""
    return Response(to_bytes(value) + b"\n", status, headers, media_type=JSON)


def to_bytes(value: Any) -> bytes:
    """Return a value as JSON text in ASCII."""
    return escape_json(value, ascii_only=True).encode()


_STATUSES: dict[type[JobQueueError], int] = {
    JobNotFound: 404,
    ScheduleNotFound: 404,
    WrongState: 409,
    InvalidArguments: 400,
    InvalidOption: 400,
    UnknownTask: 400,
    EnqueueRefused: 400,
    QueueFull: 503,
    SchemaOutdated: 503,
    SchemaNewer: 503,
    DatabaseReplaced: 503,
}


def as_http_error(error: BaseException, *, writes: bool, page: bool = False) -> HTTPError:
    """Return the response to an exception. An unexpected one is logged by type and place only.

    `writes` says that the request may have changed something, `page` that a person made it.
    """
    if isinstance(error, HTTPError):
        return error
    if isinstance(error, HTTPException):
        message = _PHRASES.get(error.status_code, error.detail)
        return HTTPError(error.status_code, message, headers=error.headers)
    if isinstance(error, JobQueueError):
        return _of_ours(error)
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if lost or isinstance(error, _DATABASE_ERRORS):
        log.warning("503: the database did not answer (%s)", type(error).__name__)
        return database_unavailable(writes=writes, page=page)
    return _unforeseen(error)


def _of_ours(error: JobQueueError) -> HTTPError:
    status = next((code for kind, code in _STATUSES.items() if isinstance(error, kind)), None)
    if status is None:
        return _unforeseen(error)
    if isinstance(error, DatabaseReplaced):  # It has to be seen to: it does not mend itself.
        log.error("503: %s", error)
    headers = {}
    if isinstance(error, QueueFull):
        headers = {"Retry-After": str(math.ceil(error.retry_after))}
    return HTTPError(status, str(error), field=error.field, value=error.value, headers=headers)


def _unforeseen(error: BaseException) -> HTTPError:
    log.error("500: unexpected %s at %s", type(error).__name__, _place(error))
    return HTTPError(500, "this went wrong here, not with the request; the log says where")


def database_unavailable(*, writes: bool, page: bool = False) -> HTTPError:
    """Return the response for a database that did not answer."""
    doubt = (
        "; whether anything was written is not known: a job with a unique_key, and unique_until "
        '"deleted", can be sent again safely'
    )
    if page:
        doubt = ", so that what you sent may be done or not: look whether it was done"
    return HTTPError(
        503,
        "the database does not answer" + (doubt if writes else ""),
        headers={"Retry-After": str(RETRY_AFTER)},
    )


def _place(error: BaseException) -> str:
    """Return file and line only: messages and lines of code may hold secrets."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
