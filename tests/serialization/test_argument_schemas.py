"""A function's arguments as JSON Schema: valid, of the annotations, and `{}` where none can say it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from jobqueue.serialization.argument_schemas import arguments_schema


@dataclass
class Point:
    x: int
    y: int


class Inner(BaseModel):
    name: str


class Outer(BaseModel):
    inner: Inner


def scalars(a: int, b: str = "b", *, c: float | None = None, d: bool) -> None: ...
def structured(p: Point, q: list[Point], at: datetime, kind: Literal["a", "b"]) -> None: ...
def modelled(o: Outer, more: list[Inner]) -> None: ...
def plain(a, b=1) -> None: ...
def others(a: int, **more: int) -> None: ...
def rest(a: int, *more: int) -> None: ...
def by_position(a: int, /) -> None: ...
def none() -> None: ...


@pytest.mark.parametrize(
    ("function", "right", "wrong"),
    [
        (scalars, {"a": 1, "d": True}, {"a": 1}),
        (scalars, {"a": 1, "d": True, "c": None}, {"a": "1", "d": True}),
        (
            structured,
            {"p": {"x": 1, "y": 2}, "q": [], "at": "2026-01-01T00:00:00Z", "kind": "a"},
            {"p": {"x": "1", "y": 2}, "q": [], "at": "2026-01-01T00:00:00Z", "kind": "a"},
        ),
        (
            structured,
            {"p": {"x": 1, "y": 2}, "q": [{"x": 1, "y": 2}], "at": "", "kind": "b"},
            {"p": {"x": 1, "y": 2}, "q": [], "at": "", "kind": "c"},
        ),
        (
            modelled,
            {"o": {"inner": {"name": "a"}}, "more": [{"name": "b"}]},
            {"o": {"inner": {}}, "more": []},
        ),
        (plain, {"a": {"any": ["thing"]}}, {"b": 1}),
        (others, {"a": 1, "c": 2}, {"a": 1, "c": "2"}),
        (rest, {"a": 1}, {"a": 1, "more": [2]}),
        (none, {}, {"a": 1}),
    ],
)
def test_the_schema_takes_what_the_function_takes(function: Any, right: Any, wrong: Any) -> None:
    schema = arguments_schema(function, function.__name__)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid(right) and not validator.is_valid(wrong)


def test_what_cannot_be_said_is_an_empty_schema() -> None:
    assert arguments_schema(by_position, "by_position") == {}

    def odd(value: complex, other: int) -> None: ...

    assert arguments_schema(odd, "odd")["properties"] == {"value": {}, "other": {"type": "integer"}}


def test_two_types_of_one_name_do_not_describe_each_other() -> None:
    mine = Point

    @dataclass
    class Point_:
        z: str

    Point_.__name__ = Point_.__qualname__ = "Point"

    def both(a: mine, b: Point_) -> None: ...

    both.__annotations__ = {"a": mine, "b": Point_}
    schema = arguments_schema(both, "both")
    assert (schema["properties"]["b"], [*schema["$defs"]]) == ({}, ["Point"])
