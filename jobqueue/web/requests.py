"""Parameters and bodies of requests: read within a limit of bytes, and parsed into calls."""

from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from jobqueue.errors import InvalidOption, JobQueueError, invalid
from jobqueue.json_calls import call_of_line
from jobqueue.json_forms import error_json
from jobqueue.printable_text import not_one
from jobqueue.serialization.json_values import MAX_BYTES, MAX_DEPTH, parse_json
from jobqueue.tasks import Call, Registry
from jobqueue.web.responses import HTTPError
from jobqueue.web.security import require_json

BODY_MAX = MAX_BYTES
BATCH_BYTES_MAX = 8 * MAX_BYTES
BATCH_MAX = 10_000
FORM_BYTES_MAX, FIELDS_MAX = 64 << 10, 1000
ERRORS_MAX = 100
"""How many wrong jobs of a batch the answer names."""


def query_of(request: Request, *known: str, repeated: Collection[str] = ()) -> dict[str, str]:
    """Return the URL's parameters. Raises InvalidOption if one is unknown or given twice.

    Of those that may be `repeated` the values are joined by commas.
    """
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise InvalidOption(not_one(name, "a parameter", known), field=name[:40])
        if name in given and name not in repeated:
            raise invalid(name, "given twice", value)
        _check_text(name, value)
        given[name] = f"{given[name]},{value}" if name in given else value
    return given


def has_body(request: Request) -> bool:
    """Return whether a request has a body, by its headers."""
    length = request.headers.get("content-length", "0")
    return length != "0" or "transfer-encoding" in request.headers


def client_of(request: Request) -> str:
    """Return the client's name for the audit: its address, since a token has no name."""
    return f"http {request.client.host}" if request.client else "http"


async def read_body(request: Request, most: int) -> bytes:
    """Return the whole body. Raises HTTPError if it is too large, or by its type not JSON."""
    require_json(request.headers.get("content-type"), has_body=True)
    return await _read(request, most)


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form, the values of repeated ones joined by commas.

    The guard has checked that it is a form. Raises HTTPError if it is too large.
    """
    text = (await _read(request, FORM_BYTES_MAX)).decode("utf-8", "replace")
    if text.count("&") >= FIELDS_MAX:
        raise HTTPError(413, f"body: more than {FIELDS_MAX:,} fields", field="body")
    fields: dict[str, str] = {}
    for name, value in parse_qsl(text):
        _check_text(name[:40], value)
        fields[name] = f"{fields[name]},{value}" if name in fields else value
    return fields


def _check_text(name: str, value: str) -> None:
    """Refuse what PostgreSQL does not take as text: NUL, and halves of surrogate pairs."""
    if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
        raise invalid(name, "has a character that cannot be stored")


async def _read(request: Request, most: int) -> bytes:
    """Return the whole body. What is too large by its own word is not read at all."""
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise HTTPError(400, "Content-Length: not a number", field="content-length")
    _check_size(int(length[:20]), most)
    body = bytearray()
    async for part in request.stream():
        body += part
        _check_size(len(body), most)
    return bytes(body)


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise HTTPError(
            413,
            f"body: more than {most:,} bytes; send less at once, or store arguments elsewhere and "
            "pass their ids",
            field="body",
        )


def object_of(body: bytes, *known: str) -> dict[str, Any]:
    """Return the object of a body with some of these keys, or an empty one for no body.

    Raises HTTPError or InvalidArguments.
    """
    given = parse_json(body, what="body", max_bytes=BODY_MAX) if body.strip() else {}
    if not isinstance(given, dict):
        keys = f" with some of {', '.join(known)}" if known else ""
        raise HTTPError(400, f"body: not an object{keys}", field="body")
    for key in given:
        if key not in known:
            said = f"body: {not_one(key, 'a key of it', known)}"
            raise HTTPError(400, said, field="body", value=key[:40])
    return given


def required(given: dict[str, Any], key: str) -> Any:
    """Return the value of a key, which may be null. Raises HTTPError if it is not there."""
    if key not in given:
        raise HTTPError(400, f'body: it has no "{key}"', field=key)
    return given[key]


def calls_of(registry: Registry, body: bytes) -> tuple[list[Call[Any]], bool]:
    """Return the calls, and whether they are a batch. Raises HTTPError or InvalidArguments."""
    is_batch = body.lstrip(b" \t\r\n").startswith(b"[")
    if not is_batch:
        _check_size(len(body), BODY_MAX)
    depth = MAX_DEPTH + 2 + is_batch
    given = parse_json(body, what="body", max_bytes=BATCH_BYTES_MAX, max_depth=depth)
    if not is_batch:
        return [call_of_line(registry, given, "body")], False
    if not given:
        raise HTTPError(400, "body: the list is empty", field="body")
    if len(given) > BATCH_MAX:
        message = f"body: {len(given):,} jobs; send at most {BATCH_MAX:,} at once"
        raise HTTPError(413, message, field="body", value=len(given))
    return _batch(registry, given), True


def _batch(registry: Registry, given: list[Any]) -> list[Call[Any]]:
    """Return all calls. Raises HTTPError, which names those that are wrong."""
    calls, errors = [], []
    for index, item in enumerate(given):
        try:
            calls.append(call_of_line(registry, item, f"item {index}"))
        except JobQueueError as error:
            message = str(error).removeprefix(f"item {index}: ")
            what = error_json(f"item {index}: {message}", error.field, error.value)
            errors.append({"index": index, **what})
            if len(errors) == ERRORS_MAX:
                break
    if errors:
        first = errors[0]
        raise HTTPError(
            400,
            f"{first['message']}; nothing was enqueued",
            field=first["field"],
            value=first["value"],
            more={"errors": errors},
        )
    return calls
