"""What is said of the operations: the OpenAPI document, and the index."""

from collections.abc import Iterable
from importlib import metadata
from typing import Any

from jobqueue.web.api.jobs import BEFORE
from jobqueue.web.api.operation import Operation, Parameter
from jobqueue.web.api.schemas import COMPONENTS, JOB_ID, TEXT, Schema
from jobqueue.web.responses import JSON

REASONS = {
    200: "Done.",
    202: "Enqueued.",
    400: "The input is wrong.",
    404: "There is no such thing.",
    409: "Its state does not allow it.",
    413: "The body is too large.",
    415: "The body is not JSON in UTF-8.",
    503: "Not now: a queue is full, or the database does not answer. See Retry-After.",
}
EVERYWHERE = "401, 403, 405, 413, 414, 415, 431, 500 or 503, as docs/http.md says."
DESCRIPTION = (
    "Enqueue, read, steer and watch a job queue. Errors are one object with message, field and "
    "value. With a token, send `Authorization: Bearer …`."
)
IN_PATH = {"id": JOB_ID, "name": TEXT}
ERROR: Schema = {"$ref": "#/components/responses/Error"}
CONTENT_OF_ERRORS = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the OpenAPI document of the operations."""
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _described(each)
    error = {
        "description": "What is wrong.",
        "headers": {
            "Retry-After": {
                "description": "Seconds; mostly of a 503.",
                "schema": {"type": "integer"},
            }
        },
        "content": CONTENT_OF_ERRORS,
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jobqueue",
            "version": metadata.version("jobqueue"),
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # Relative to this document, so that it holds below any mount and behind any proxy.
        "servers": [{"url": "."}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": COMPONENTS,
            "responses": {"Error": error},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    parts = operation.path.strip("/").split("/")
    in_path = [
        _parameter(Parameter(name, IN_PATH[name], f"The {name} it is about."), "path")
        for name in operation.path_parameters
    ]
    in_query = [_parameter(each, "query") for each in operation.parameters or ()]
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [parts[1] if parts[1:] else "server"],
        "responses": {
            **{str(status): ERROR for status in operation.statuses if status >= 400},  # noqa: PLR2004
            str(operation.status): {
                "description": REASONS[operation.status],
                "headers": _headers(operation),
                "content": {operation.media: {"schema": operation.answer}},
            },
            "default": {"description": EVERYWHERE, "content": CONTENT_OF_ERRORS},
        },
    }
    if in_path or in_query:
        described["parameters"] = in_path + in_query
    if operation.body is not None:
        content = {JSON: {"schema": operation.body}}
        described["requestBody"] = {"required": operation.needs_body, "content": content}
    return described


def _headers(operation: Operation) -> dict[str, Any]:
    """Return the headers that an answer may have beside those of HTTP."""
    names = {each.name for each in operation.parameters or ()}
    may_have = {
        "Link": (
            BEFORE.name in names,
            'The next page, as rel="next": smaller ids than the last one. Left out at the end.',
        ),
        "Jobqueue-Notice": (
            operation.notes,
            "Why nothing matches: a name of the filter that is not known, and what may be meant.",
        ),
        "Location": (operation.status == 202, "The job that was made."),  # noqa: PLR2004
    }
    return {
        name: {"description": why, "schema": TEXT}
        for name, (there, why) in may_have.items()
        if there
    }


def _parameter(of: Parameter, where: str) -> dict[str, Any]:
    return {
        "name": of.name,
        "in": where,
        "required": where == "path",
        "description": of.description,
        "schema": of.schema,
    }


def index(operations: Iterable[Operation], root: str) -> dict[str, Any]:
    """Return what there is, a line each, with paths from the host's root."""
    return {
        "openapi": f"{root}/openapi.json",
        "operations": [
            {"method": each.method, "path": root + each.path, "summary": each.summary}
            for each in operations
        ],
    }
