"""Check what is stored as JSON: one validator for all entry points, and the strict parser of text.

Both databases must keep, compare and show the same values, so what one of them (or JSON itself)
would lose or change is refused before it is written, with its path.
"""

import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import os
import reprlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import msgspec

from jobqueue.errors import InvalidArguments

MAX_BYTES = 1 << 20
"""Bytes of UTF-8 that the arguments of one job, or its result, may take."""
MAX_DEPTH = 64
"""Lists and objects that may be nested in each other."""

INTEGER_MIN = -(1 << 63)
INTEGER_MAX = (1 << 63) - 1
_INTEGER_DIGITS = 20  # of the longest literal that can be within 64 bits, sign included
_SCALARS = frozenset({str, int, float, bool, type(None)})
_PLAIN = _SCALARS | {list, dict}
_SHOWN = 60  # characters of a value in a message

ENCODER = msgspec.json.Encoder()
TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels, or contains itself"


def check_value(
    value: object, path: str, *, depth: int = 0, kinds: tuple[type, ...] = (list,)
) -> None:
    """Refuse `value` unless it is plain JSON that a round trip through both databases keeps.

    Raises `InvalidArguments`, whose `field` is the path of the offender, starting with `path`.
    Only the exact types count: a subclass (an enum, a NumPy number) would come back as its base.
    `depth` is how deep `value` itself lies; `kinds` are the types that stand for JSON's lists.
    """
    try:
        _check(value, depth, kinds)
    except _RefusalError as refusal:
        where = path + "".join(reversed(refusal.steps))
        raise refuse(where, refusal.reason, refusal.value) from None
    except RecursionError:  # The caller's own stack was nearly full.
        raise InvalidArguments(f"{path}: {TOO_DEEP}", field=path) from None


def are_kept(scalars: Iterable[object]) -> bool:
    """Return whether `check_value` accepts each of these values: at half of its cost."""
    try:
        for value in scalars:
            _check(value, 0, ())
    except _RefusalError:
        return False
    return True


def encode_scalar(value: object, path: str) -> str:
    """Write a value of a scalar type; raises as `check_value` and `check_size` do."""
    if value is None:  # What most tasks return: at a tenth of the cost, and an id at half.
        return "null"
    if type(value) is int and INTEGER_MIN <= value <= INTEGER_MAX:
        return str(value)
    check_value(value, path)
    text = ENCODER.encode(value)
    check_size(len(text), path)
    return text.decode()


def encode_plain(args: object, kwargs: object) -> str:
    """Write a call as canonical JSON text, without knowing the task: plain JSON values only."""
    if not isinstance(args, list | tuple):
        raise refuse("args", f"must be a list, not {type(args).__name__}", args)
    if not isinstance(kwargs, dict):
        raise refuse("kwargs", f"must be an object, not {type(kwargs).__name__}", kwargs)
    check_value(dict.fromkeys(kwargs), "kwargs")  # the names alone
    named = {key: plain_piece(value, "kwargs" + step(key)) for key, value in kwargs.items()}
    return assemble([plain_piece(item, f"args[{i}]") for i, item in enumerate(args)], named)


def parse_json(
    text: str | bytes, *, what: str, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH
) -> Any:
    """Read strict JSON text; `what` names it in errors (`--args`, `line 3`, `body`).

    Raises only `InvalidArguments`, which names what is wrong; a syntax error by its offset from 0.
    The bounds are for entry points whose text wraps arguments in more levels, or holds many jobs.
    """
    decoded = _decode_utf8(text, what, max_bytes)
    try:
        value = json.loads(decoded, **_HOOKS)
    except json.JSONDecodeError as error:
        reason = f"not valid JSON: {error.msg.removesuffix(' at')} at offset {error.pos}"
    except _RefusalError as refusal:
        reason = f"not valid JSON: {refusal}"
    except RecursionError:
        reason = TOO_DEEP
    else:
        check_value(value, what, depth=MAX_DEPTH - max_depth)
        return value
    raise refuse(what, reason, decoded)


class Piece(NamedTuple):
    """One argument, written."""

    path: str
    text: bytes


def plain_piece(value: object, path: str, kinds: tuple[type, ...] = (list,)) -> Piece:
    """Check one plain value and write it."""
    check_value(value, path, kinds=kinds)
    return Piece(path, ENCODER.encode(value))


def assemble(args: Sequence[Piece], kwargs: Mapping[str, Piece]) -> str:
    """Put written arguments together as one canonical text, within the bound on its size."""
    call = {
        "args": [msgspec.Raw(piece.text) for piece in args],
        "kwargs": {name: msgspec.Raw(piece.text) for name, piece in kwargs.items()},
    }
    text = ENCODER.encode(call)
    if len(text) > MAX_BYTES:
        pieces = (*args, *kwargs.values())
        check_size(len(text), max(pieces, key=lambda piece: len(piece.text)).path)
    return text.decode()


def check_size(size: int, path: str) -> None:
    """Refuse a text of more than `MAX_BYTES`; `path` is the greatest part of it."""
    if size > MAX_BYTES:
        reason = f"{size:,} bytes as JSON, at most {MAX_BYTES:,} are kept"
        raise InvalidArguments(f"{path}: {reason}; store it elsewhere and pass its id", field=path)


def refuse(path: str, reason: str, value: object) -> InvalidArguments:
    """Make the error about the value at `path`."""
    return InvalidArguments(f"{path}: {reason} (got {shorten(value)})", field=path, value=value)


def step(key: object) -> str:
    """Name one step of a path: `.name`, or `["any text"]`."""
    if type(key) is str and key.isidentifier() and len(key) <= _SHOWN:
        return f".{key}"
    return f"[{shorten(key)}]"


def shorten(value: object) -> str:
    """Describe a value in at most about 60 printable characters, whatever its `repr` does."""
    if isinstance(value, int) and value.bit_length() > 4 * _SHOWN:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str | bytes | bytearray) and len(value) > _SHOWN:
        return f"{bytes(value[:_SHOWN]) if not isinstance(value, str) else value[:_SHOWN]!r}…"
    try:
        text = _BRIEF.repr(value)
    except Exception:  # noqa: BLE001 - a repr of the user's may do anything.
        return f"<{type(value).__name__}>"
    text = text.encode("utf-8", "backslashreplace").decode()
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def check_equal(value: object, back: object, path: str) -> None:
    """Refuse `value` unless `back`, which was read from its text, is equal to it."""
    _check_kind(value, back, path)
    if isinstance(value, set | frozenset):
        for item in value:
            check_equal(item, item, path)  # Only instants can be refused.
    mine, theirs = _children(value), _children(back)
    if mine is None or theirs is None:
        if not _is_same(value, back):
            raise refuse(path, f"would come back as {shorten(back)}", value)
        return
    if len(mine) != len(theirs):
        raise refuse(path, f"{len(mine)} items would come back as {len(theirs)}", value)
    for key, item in mine.items():
        if key not in theirs:
            raise refuse(path, f"key {shorten(key)} would not come back as it is", value)
        if type(key) is int and not INTEGER_MIN <= key <= INTEGER_MAX:
            raise refuse(path, "integer beyond 64 bits as a key", key)
        other = theirs[key]
        if type(item) is not type(other) or type(item) not in _SCALARS or item != other:
            check_equal(item, other, path + step(key))


def _check_kind(value: object, back: object, path: str) -> None:
    """Refuse another type than the annotation's, and instants that are none."""
    kind = type(back)
    if isinstance(value, dt.datetime) and value.utcoffset() is None:
        reason = "a datetime without a time zone is ambiguous; make it aware (datetime.now(UTC))"
        raise refuse(path, reason, value)
    if kind is float:
        is_right = isinstance(value, int | float) and not isinstance(value, bool)
    elif _children(back) is None or kind in (list, tuple, dict):
        # Subclasses may stand for these (an enum of texts, say), if they are equal.
        is_right = isinstance(value, kind) and isinstance(value, bool) is (kind is bool)
    else:
        is_right = type(value) is kind
    if not is_right:
        hint = "" if type(value) in _PLAIN or kind not in _PLAIN else f": {not_plain(value)}"
        reason = f"expected {kind.__name__}, got {type(value).__name__}{hint}"
        raise refuse(path, reason, value)


def find_path(value: object, target: object) -> str | None:
    """Find the path of one object within another."""
    if value is target:
        return ""
    for key, item in (_children(value) or {}).items():
        rest = find_path(item, target)
        if rest is not None:
            return step(key) + rest
    return None


def _children(value: object) -> dict[Any, Any] | None:
    """Name what a container or an object of fields consists of; None for anything else."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if isinstance(value, msgspec.Struct):
        names: Sequence[str] = value.__struct_fields__
    elif dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    else:
        return None
    # A field that is not set is not written either; it is then missing on both sides.
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _is_same(value: Any, back: Any) -> bool:
    try:
        # In the hour that a clock change repeats, == between zones is always false.
        with contextlib.suppress(OverflowError):  # within a day of the first or last instant
            if isinstance(value, dt.datetime):
                return bool(value.astimezone(dt.UTC) == back.astimezone(dt.UTC))
        return bool(value == back)
    except Exception:  # noqa: BLE001 - the == of a Decimal may raise, and of the user's objects.
        return False


class _RefusalError(Exception):
    """Carries the reason and the offender up to the entry point, gathering the path on its way."""

    def __init__(self, reason: str, value: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.value = value
        self.steps: list[str] = []  # innermost first


def _check(value: object, depth: int, kinds: tuple[type, ...]) -> None:
    """Refuse what is not plain JSON; paths are built only when something is refused."""
    kind = type(value)
    if kind is str:
        _check_text(value)  # type: ignore[arg-type]
    elif kind is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:  # type: ignore[operator]
            raise _RefusalError("integer beyond 64 bits: pass it as text", value)
    elif kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            name = "NaN" if value != value else "Infinity"  # noqa: PLR0124 - only NaN differs.
            raise _RefusalError(f"{name} is not JSON", value)
    elif kind in kinds:
        _check_items(enumerate(value), depth, kinds)  # type: ignore[arg-type]
    elif kind is dict:
        for key in value:  # type: ignore[attr-defined]
            _check_key(key)
        _check_items(value.items(), depth, kinds)  # type: ignore[attr-defined]
    elif value is not None and kind is not bool:
        raise _RefusalError(not_plain(value), value)


def _check_items(
    items: Iterable[tuple[object, object]], depth: int, kinds: tuple[type, ...]
) -> None:
    if depth >= MAX_DEPTH:
        raise _RefusalError(TOO_DEEP, None)
    key: object = None
    try:
        for key, item in items:  # noqa: B007 - it is used when one is refused.
            _check(item, depth + 1, kinds)
    except _RefusalError as refusal:
        refusal.steps.append(step(key))
        raise


def _check_key(key: object) -> None:
    if type(key) is not str:
        reason = f"a key must be text, not {type(key).__name__}: JSON would turn it into text"
        raise _RefusalError(reason, key)
    try:
        _check_text(key)
    except _RefusalError as refusal:
        raise _RefusalError(f"in a key: {refusal.reason}", key) from None


def _check_text(text: str) -> None:
    if "\0" in text:
        raise _RefusalError("NUL characters cannot be stored", text)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            reason = f"lone surrogate at character {error.start} is not valid text"
            raise _RefusalError(reason, text) from None


def not_plain(value: object) -> str:
    """Say why a value is not plain JSON, and what to pass instead."""
    other = "pass plain JSON values, or annotate the parameter with its type"
    hint = next((remedy for kinds, remedy in _REMEDIES if isinstance(value, kinds)), other)
    return f"{type(value).__name__} is not JSON: {hint}"


_REMEDIES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (enum.Enum, "pass its .value, or annotate the parameter"),
    ((tuple, set, frozenset), "pass a list (JSON has only lists), or annotate the parameter"),
    ((dt.date, dt.time), "pass .isoformat(), or annotate the parameter"),
    (dt.timedelta, "pass .total_seconds(), or annotate the parameter"),
    ((decimal.Decimal, uuid.UUID), "pass str(…) of it, or annotate the parameter"),
    ((bytes, bytearray, memoryview), "annotate the parameter as bytes, or pass text"),
    ((os.PathLike, str), "pass str(…) of it"),
    ((int, float, list, dict), "convert it to the built-in type that it extends"),
)


def _decode_utf8(text: str | bytes, what: str, max_bytes: int) -> str:
    try:
        encoded = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
        if len(encoded) > max_bytes:
            reason = f"{what}: {len(encoded):,} bytes, at most {max_bytes:,} are taken"
            raise InvalidArguments(f"{reason}; store it elsewhere and pass its id", field=what)
        return encoded.decode()
    except UnicodeDecodeError as error:
        # An argument of a command line that is not UTF-8 arrives as surrogates, one for a byte.
        raise refuse(what, f"invalid UTF-8 at byte offset {error.start}", text) from None
    except UnicodeEncodeError as error:
        raise refuse(what, f"lone surrogate at offset {error.start}", text) from None


def _refuse_literal(literal: str) -> NoReturn:
    raise _RefusalError(f"{literal} is not JSON", literal)


def _parse_float(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise _RefusalError(f"number out of range: {_cut(literal)}", literal)
    return number


def _parse_integer(literal: str) -> int:
    # int() itself refuses thousands of digits, with a ValueError about its own settings.
    if len(literal) > _INTEGER_DIGITS or not INTEGER_MIN <= int(literal) <= INTEGER_MAX:
        raise _RefusalError(f"integer beyond 64 bits: {_cut(literal)}", literal)
    return int(literal)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusalError(f"duplicate key {shorten(key)}", key)
            seen.add(key)
    return result


_HOOKS: dict[str, Any] = {
    "parse_constant": _refuse_literal,
    "parse_float": _parse_float,
    "parse_int": _parse_integer,
    "object_pairs_hook": _unique,
}
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = _SHOWN
_BRIEF.maxlevel = 3
