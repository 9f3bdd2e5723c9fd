"""Types and functions whose arguments the tests of the codec write and read."""

import dataclasses
import datetime as dt
import decimal
import enum
import json
from typing import Any, NamedTuple, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from jobqueue.errors import InvalidArguments
from jobqueue.serialization.codec import Codec

T = TypeVar("T")
UTC = dt.UTC
NOW = dt.datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    A = "a"


@dataclasses.dataclass
class Order:
    id: int
    when: dt.datetime | None = None
    lines: list["Line"] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    name: str
    price: decimal.Decimal


class Point(NamedTuple):
    x: int
    y: float


class Options(TypedDict, total=False):
    depth: int
    label: str


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


class User(pydantic.BaseModel):
    id: int
    born: dt.date


def codec(hint: Any, result: Any = Any) -> Codec:
    def task(x): ...

    task.__annotations__ = {"x": hint, "return": result}
    return Codec(task, "task")


def add(x: int, y: int = 1) -> int:
    return x + y


def plain(x): ...


def nested(value: object, depth: int) -> object:
    for _ in range(depth):
        value = [value]
    return value


def round_trip(hint: Any, value: Any) -> Any:
    made = codec(hint)
    text = made.encode((value,), {})
    assert made.encode((value,), {}) == text
    assert json.loads(text)["kwargs"] == {}
    (back,), kwargs = made.decode(text)
    assert kwargs == {}
    assert made.decode(made.encode((), {"x": value})) == ((), {"x": back})
    assert made.from_json(json.loads(text)["args"], {}) == text
    return back


def refusal(call: Any, *args: Any, **kwargs: Any) -> InvalidArguments:
    with pytest.raises(InvalidArguments) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    message.encode()
    assert len(message) < 600
    assert "\n" not in message
    return caught.value


def exact(value: object) -> object:
    return json.dumps(value)


def lambda_free(a: str, b: str): ...
