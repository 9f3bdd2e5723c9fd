"""Turn the arguments and results of one function into canonical JSON text and back, by annotation.

A value is accepted only if reading the text back gives an equal value: whatever its annotation,
it is written, read and compared before anything is stored. `msgspec` converts, `json_values`
checks.
"""

import contextlib
import functools
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from msgspec import inspect as types

from jobqueue.errors import ConfigurationError, InvalidArguments
from jobqueue.serialization import functions, models
from jobqueue.serialization.json_values import (
    ENCODER,
    MAX_BYTES,
    TOO_DEEP,
    Piece,
    are_kept,
    assemble,
    check_equal,
    check_size,
    check_value,
    encode_plain,
    encode_scalar,
    find_path,
    not_plain,
    plain_piece,
    refuse,
    shorten,
    step,
)
from jobqueue.serialization.redacted_errors import redact_error, redact_plain_error

_SCALARS: tuple[tuple[types.Type, type], ...] = (
    (types.IntType(), int),
    (types.StrType(), str),
    (types.FloatType(), float),
    (types.BoolType(), bool),
    (types.NoneType(), type(None)),
)
_MSGSPEC_PATH = re.compile(r"^(.*?)(?: - at (`key` in )?`\$(.*)`)?$", re.DOTALL)
_PATH_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|.", re.DOTALL)


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """The text of a call, its arguments not yet read."""

    args: list[msgspec.Raw]
    kwargs: dict[str, msgspec.Raw]


_ENVELOPE = msgspec.json.Decoder(_Envelope)


class Codec:
    """Convert the arguments and results of one function to canonical JSON text and back.

    Made once, where the task is defined; raises `ConfigurationError` if the function, or one of
    its annotations, cannot be a task's. May be used from any thread.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.name = name
        self.hidden: tuple[str, ...] = ()
        """The parameters whose values no message shows."""
        functions.check(function, name)
        self._signature = inspect.signature(function)
        self._hint = functions.hint(function)
        hints = functions.annotations(function, name)
        self._positional: list[_Slot] = []
        self._named: dict[str, _Slot] = {}
        self._required = 0  # of the positional ones
        self._needs_keywords = False
        self._rest: _Slot | None = None  # *args
        self._others: _Slot | None = None  # **kwargs
        for parameter in self._signature.parameters.values():
            self._add(parameter, hints.get(parameter.name, Any))
        self._result = _Slot("result", hints.get("return", Any), f"{name}: the return annotation")
        self._quick_calls = self._find_quick_calls()
        self._quick_decoder = self._make_quick_decoder()

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Write a call as canonical JSON text; refuse what would not come back equal."""
        # The common call (scalars by position) needs no binding and no trial reading.
        if not kwargs and tuple(map(type, args)) in self._quick_calls and are_kept(args):
            text = ENCODER.encode({"args": args, "kwargs": kwargs})
            if len(text) <= MAX_BYTES:
                return text.decode()
        self._bind(args, kwargs)
        try:
            check_value(dict.fromkeys(kwargs), "kwargs")  # the names alone
            named: dict[str, Piece] = {}
            for name, value in kwargs.items():
                slot, path = self._by_name(name)
                named[name] = slot.write(value, path)
            written = [slot.write(item, path) for slot, path, item in self._placed(args)]
            return assemble(written, named)
        except InvalidArguments as error:
            raise self._prefixed(error) from None

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read a call's text as typed values; refuse what the function no longer takes."""
        if self._quick_decoder is not None:
            try:
                call = self._quick_decoder.decode(text)
                if not call.kwargs:
                    return call.args, {}
            except Exception:  # noqa: BLE001, S110 - read slowly below, which says what is wrong.
                pass
        try:
            envelope = _ENVELOPE.decode(text)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is about the text.
            reason = f'{self.name}: not the text of a call, {{"args": […], "kwargs": {{…}}}}'
            shown = None if self.hidden else text
            raise InvalidArguments(f"{reason}: {error}", field="args", value=shown) from None
        self._bind(tuple(envelope.args), envelope.kwargs)
        return self._read(envelope.args, envelope.kwargs)

    def from_json(self, args: list[Any], kwargs: dict[str, Any]) -> str:
        """Write a call whose values came as plain JSON (an instant as ISO text, and so on)."""
        try:
            plain = encode_plain(args, kwargs)
        except InvalidArguments as error:
            raise redact_plain_error(error, self.hidden, self._signature) from None
        self._bind(tuple(args), kwargs)
        envelope = _ENVELOPE.decode(plain)
        return self.encode(*self._read(envelope.args, envelope.kwargs))

    def takes(self, place: int | str, value: Any) -> bool:
        """True if a plain JSON value fits the parameter at this position, or of this name.

        Also true for a place that the function does not have: writing the call refuses it.
        """
        slot = self._rest
        if isinstance(place, str):
            slot = self._named.get(place, self._others)
        elif place < len(self._positional):
            slot = self._positional[place]
        try:
            if slot is not None:
                slot.read(msgspec.Raw(plain_piece(value, slot.path).text), slot.path)
        except InvalidArguments:
            return False
        return True

    def encode_result(self, value: object) -> str:
        """Write what the function returned; `InvalidArguments` names `result…` if it cannot be."""
        if type(value) is self._result.scalar:
            return encode_scalar(value, "result")
        text = self._write_result(value)
        check_size(len(text), "result")
        return text.decode()

    def decode_result(self, text: str) -> Any:
        """Read a result by the return annotation; if that has changed since, as plain JSON."""
        try:
            return self._result.decoder.decode(text)
        except Exception:  # noqa: BLE001 - the result of a job that is over must stay readable.
            return msgspec.json.decode(text)

    def _write_result(self, value: object) -> bytes:
        try:
            return self._result.write(value, "result").text
        except InvalidArguments as refusal:
            # The job is done: a value other than annotated is still kept, if JSON can keep it.
            try:
                piece = plain_piece(value, "result")
                check_equal(value, self.decode_result(piece.text.decode()), "result")
            except InvalidArguments:
                raise refusal from None
            return piece.text

    def _add(self, parameter: inspect.Parameter, hint: Any) -> None:
        slot = _Slot(parameter.name, hint, f"{self.name}: parameter {parameter.name}")
        is_required = parameter.default is parameter.empty
        if parameter.kind is parameter.VAR_POSITIONAL:
            self._rest = slot
        elif parameter.kind is parameter.VAR_KEYWORD:
            self._others = slot
        else:
            if parameter.kind is parameter.KEYWORD_ONLY:
                self._needs_keywords |= is_required
            else:
                self._positional.append(slot)
                self._required += is_required
            if parameter.kind is not parameter.POSITIONAL_ONLY:
                self._named[parameter.name] = slot

    def _find_quick_calls(self) -> frozenset[tuple[type | None, ...]]:
        """List the types of the positional calls that consist of annotated scalars only."""
        kinds = [slot.scalar for slot in self._positional]
        calls = (tuple(kinds[:count]) for count in range(self._required, len(kinds) + 1))
        return frozenset(call for call in calls if None not in call and not self._needs_keywords)

    def _make_quick_decoder(self) -> msgspec.json.Decoder[Any] | None:
        """Make the decoder of a call with every parameter by position, in one pass."""
        if (
            self._rest is not None
            or self._others is not None
            or self._needs_keywords
            or any(slot.has_instants for slot in self._positional)
        ):
            return None
        values = tuple[tuple(slot.hint for slot in self._positional)]  # type: ignore[misc, valid-type]
        fields = [("args", values), ("kwargs", dict[str, msgspec.Raw])]
        call = msgspec.defstruct("Call", fields, forbid_unknown_fields=True)
        return msgspec.json.Decoder(call, dec_hook=_decode_custom)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            reason: object = error
            # Of `order` in place of `order_id` it says that `order_id` is missing.
            unexpected = next(
                (name for name in kwargs if name not in self._signature.parameters), None
            )
            if unexpected is not None and self._others is None:
                reason = f"got an unexpected keyword argument {shorten(unexpected)}"
            text = f"{self.name}: {reason}; it takes {self._signature}{self._hint}"
            raise InvalidArguments(text, field="args") from None

    def _placed(self, args: Iterable[Any]) -> Iterator[tuple["_Slot", str, Any]]:
        for slot, item in zip(self._positional, args, strict=False):
            yield slot, slot.path, item
        if self._rest is not None:
            for index, item in enumerate(itertools.islice(args, len(self._positional), None)):
                yield self._rest, f"{self._rest.path}[{index}]", item

    def _by_name(self, name: str) -> tuple["_Slot", str]:
        slot = self._named.get(name, self._others)
        assert slot is not None  # Binding has refused a surplus.
        return slot, step(name).removeprefix(".")

    def _read(
        self, args: list[msgspec.Raw], kwargs: dict[str, msgspec.Raw]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            values = tuple(slot.read(text, path) for slot, path, text in self._placed(args))
            named = {}
            for name, text in kwargs.items():
                slot, path = self._by_name(name)
                named[name] = slot.read(text, path)
            return values, named
        except InvalidArguments as error:
            raise self._prefixed(error) from None

    def _prefixed(self, error: InvalidArguments) -> InvalidArguments:
        error = redact_error(error, self.hidden, self._signature)
        return InvalidArguments(f"{self.name}: {error}", field=error.field, value=error.value)


class _Slot:
    """Convert the values of one parameter."""

    def __init__(self, path: str, hint: Any, where: str) -> None:
        try:
            info = types.type_info(hint)
            nodes = list(_nodes(info))
            self.decoder = msgspec.json.Decoder(hint, dec_hook=_decode_custom)
        except Exception as error:
            raise ConfigurationError(f"{where}: {error}", field=path, value=hint) from error
        for node in nodes:
            if reason := _refusal(node):
                raise ConfigurationError(f"{where}: {reason}", field=path, value=hint)
        self.path = path
        self.hint = hint
        self.is_plain = isinstance(info, types.AnyType | types.CustomType) and not models.is_model(
            getattr(info, "cls", object)
        )
        self.scalar = next((kind for scalar, kind in _SCALARS if info == scalar), None)
        self.has_instants = any(isinstance(node, types.DateTimeType) for node in nodes)
        self.has_floats = any(isinstance(node, types.FloatType) for node in nodes)
        self.has_sets = any(isinstance(node, types.SetType | types.FrozenSetType) for node in nodes)

    def write(self, value: object, path: str) -> Piece:
        """Check and write one value; refuse it if it would not come back equal."""
        if self.is_plain or type(value) is self.scalar:
            return plain_piece(value, path)
        piece = plain_piece(self._to_plain(value, path), path, (list, tuple))
        check_size(len(piece.text), path)  # before the cost of reading it back
        back = self._decode(piece.text, path, value)
        check_equal(value, back, path)
        # An integer for a float is written as a float, as it is when it came as JSON.
        return Piece(path, ENCODER.encode(self._to_plain(back, path))) if self.has_floats else piece

    def _to_plain(self, value: object, path: str) -> Any:
        try:
            # A set has no order of its own; text must not depend on the process that wrote it.
            if self.has_sets:
                with contextlib.suppress(TypeError):  # of items that have no order
                    return _TO_PLAIN(value, order="deterministic")
            return _TO_PLAIN(value)
        except RecursionError:
            raise refuse(path, TOO_DEEP, type(value)) from None
        except _UnsupportedError as error:
            where = path + (find_path(value, error.value) or "")
            raise refuse(where, not_plain(error.value), error.value) from None
        except Exception as error:  # noqa: BLE001 - properties of the user's objects may raise.
            raise refuse(path, f"cannot be written as JSON: {error}", value) from None

    def read(self, text: msgspec.Raw, path: str) -> Any:
        """Read one value by its annotation."""
        value = self._decode(text, path, None)
        if self.has_instants:
            try:
                check_equal(value, value, path)  # Refuses instants without a time zone.
            except RecursionError:
                raise refuse(path, TOO_DEEP, type(value)) from None
        return value

    def _decode(self, text: bytes | msgspec.Raw, path: str, given: object) -> Any:
        try:
            return self.decoder.decode(text)
        except RecursionError:
            raise refuse(path, TOO_DEEP, given) from None
        except Exception as error:  # noqa: BLE001 - constructors of the user's may raise anything.
            parts = _MSGSPEC_PATH.match(str(error))
            reason, key, steps = parts.groups() if parts else (str(error), None, "")
            value = _walk(text, steps or "") if given is None or steps else given
            reason = " ".join(reason.replace("`", "").split())[:200]
            reason = ("in a key: " if key else "") + reason[:1].lower() + reason[1:]
            raise refuse(path + (steps or ""), reason, value) from None


class _UnsupportedError(TypeError):
    """Says that a value is of a type that no annotation covers."""

    def __init__(self, value: object) -> None:
        super().__init__(f"{type(value).__name__} is not JSON")
        self.value = value


def _nodes(info: types.Type) -> Iterator[types.Type]:
    """Visit a type and every type within it, once."""
    waiting: list[Any] = [info]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, types.Type | types.Field | tuple):
            continue
        seen.add(id(node))
        if isinstance(node, tuple):
            waiting.extend(node)
            continue
        if isinstance(node, types.Type):
            yield node
        waiting.extend(getattr(node, field) for field in node.__struct_fields__)


def _refusal(node: types.Type) -> str | None:
    """Why no value of a type could come back equal; None if some can."""
    if not isinstance(node, types.RawType | types.CustomType):
        return None
    kind = getattr(node, "cls", msgspec.Raw)
    if kind is object or models.is_model(kind):
        return None
    return f"{kind.__qualname__} cannot be written as JSON and read back; take its id or its parts"


def _encode_custom(value: Any) -> Any:
    if models.is_model(type(value)):
        return models.to_plain(value)
    raise _UnsupportedError(value)


_TO_PLAIN = functools.partial(msgspec.to_builtins, str_keys=True, enc_hook=_encode_custom)


def _decode_custom(kind: Any, value: Any) -> Any:
    if models.is_model(kind):
        return models.from_json(kind, ENCODER.encode(value))
    return value


def _walk(text: bytes | msgspec.Raw, steps: str) -> Any:
    """Find the value at msgspec's path; as far as it says, which for a key is not at all."""
    value: Any = bytes(text)
    with contextlib.suppress(Exception):
        value = msgspec.json.decode(text)
        for part in _PATH_STEP.finditer(steps):
            value = value[part[1] or int(part[2])]
    return value
