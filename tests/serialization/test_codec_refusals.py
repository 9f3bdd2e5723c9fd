"""What the codec refuses, and with which path: values, stored text, results, functions that cannot be tasks."""

import collections
import dataclasses
import datetime as dt
import decimal
import functools
import json
import math
import pathlib
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
import pytest

from jobqueue.errors import ConfigurationError, InvalidArguments
from jobqueue.serialization.codec import Codec
from jobqueue.serialization.json_values import MAX_BYTES, check_value, encode_plain, parse_json
from tests.serialization.codec_kit import (
    NOW,
    Cat,
    Color,
    Dog,
    Line,
    Name,
    Order,
    Point,
    User,
    add,
    codec,
    lambda_free,
    nested,
    plain,
    refusal,
    round_trip,
)

# What is refused


@pytest.mark.parametrize(
    ("hint", "value", "says"),
    [
        (int, "2", "expected int, got str"),
        (int, True, "expected int, got bool"),
        (int, 2.0, "expected int, got float"),
        (int, None, "expected int, got null"),
        (float, True, "expected float, got bool"),
        (float, "1", "expected float, got str"),
        (float, 2**53 + 1, "would come back as"),
        (float, math.nan, "NaN is not JSON"),
        (float, math.inf, "Infinity is not JSON"),
        (bool, 1, "expected bool, got int"),
        (str, 1, "expected str, got int"),
        (str, NOW, "expected str, got datetime"),
        (str, Color.RED, "expected str, got Color"),
        (bytes, "YWJj", "expected bytes, got str"),
        (dt.datetime, "2026-01-01T00:00:00Z", "expected datetime, got str"),
        (dt.datetime, dt.datetime(2026, 1, 1), "without a time zone"),
        (dt.datetime, dt.date(2026, 1, 1), "datetime"),
        (dt.date, NOW, "date"),
        (dt.date, "2026-01-01", "expected date, got str"),
        (uuid.UUID, str(uuid.UUID(int=1)), "expected UUID, got str"),
        (decimal.Decimal, 1.5, "expected Decimal, got float"),
        (decimal.Decimal, decimal.Decimal("NaN"), "would come back"),
        (Color, "red", "expected Color, got str"),
        (Color, "green", "invalid enum value"),
        (Order, {"id": 1}, "expected Order, got dict"),
        (User, {"id": 1, "born": "2000-01-01"}, "expected User, got dict"),
        (Point, (1, 2.0), "expected Point, got tuple"),
        (list[int], (1, 2), "expected list, got tuple"),
        (tuple[int, int], [1, 2], "expected tuple, got list"),
        (tuple[int, int], (1, 2, 3), "length 2"),
        (Literal["a"], "b", "invalid enum value"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, ">= 1"),
        (int | None, "2", "got str"),
        (dict[str, int], {1: 1}, "would not come back"),
        (dict[tuple, int], {(1,): 1}, "keys"),
        (list, [b"x"], "expected str, got bytes"),
        (int, 2**63, "beyond 64 bits"),
        pytest.param(int, 10**5000, "beyond 64 bits", id="5001 digits"),
        (bytes, b"x" * MAX_BYTES, "at most 1,048,576"),
        (str, "x" * MAX_BYTES, "store it elsewhere and pass its id"),
    ],
)
def test_a_value_other_than_annotated_is_refused(hint, value, says):
    made = codec(hint)
    for args, kwargs in (((value,), {}), ((), {"x": value})):
        error = refusal(made.encode, args, kwargs)
        assert says in str(error)
        assert "task: x" in str(error)
        assert error.field.startswith("x")


@pytest.mark.parametrize(
    ("hint", "value", "path"),
    [
        (Order, Order("1"), "x.id"),
        (Order, Order(1, dt.datetime(2026, 1, 1)), "x.when"),
        (
            list[Order],
            [Order(1), Order(1, NOW, [Line("\ud800", decimal.Decimal(1))])],
            "x[1].lines[0].name",
        ),
        (list[Order], [Order(1, NOW, [Line("a", "1")])], "x[0].lines[0].price"),
        (dict[str, Any], {"a b": {"c": math.nan}}, "x['a b'].c"),
        (dict[str, Any], {"a": [{"b": pathlib.Path("x")}]}, "x.a[0].b"),
        (dict[str, Any], {"a": [1, NOW]}, "x.a[1]"),
        (dict[str, Any], {"a": (1, 2)}, "x.a"),
        (dict[int, str], {7: "\0"}, "x['7']"),
        (set[dt.datetime], {dt.datetime(2026, 1, 1)}, "x"),
        (Cat | Dog, Dog(5), "x.name"),
    ],
)
def test_the_path_within_an_annotated_value_is_named(hint, value, path):
    assert refusal(codec(hint).encode, (value,), {}).field == path


class Number(float):
    pass


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"x", "bytes is not JSON: annotate the parameter as bytes"),
        ({1}, "set is not JSON: pass a list"),
        ((1, 2), "tuple is not JSON: pass a list"),
        (NOW, "datetime is not JSON: pass .isoformat()"),
        (dt.timedelta(1), "timedelta is not JSON: pass .total_seconds()"),
        (decimal.Decimal(1), "Decimal is not JSON: pass str(…)"),
        (uuid.UUID(int=1), "UUID is not JSON: pass str(…)"),
        (pathlib.Path("x"), "PosixPath is not JSON: pass str(…)"),
        (Order(1), "Order is not JSON: pass plain JSON values, or annotate"),
        (Name.A, "Name is not JSON: pass its .value"),
        (Number(1), "Number is not JSON: convert it"),
        (collections.OrderedDict(), "OrderedDict is not JSON: convert it"),
        (object(), "object is not JSON"),
        (int, "type is not JSON"),
        (math.nan, "NaN is not JSON"),
        (-math.inf, "Infinity is not JSON"),
        ("a\0b", "NUL"),
        ("\ud800", "lone surrogate at character 0"),
        (2**63, "beyond 64 bits"),
        (-(2**63) - 1, "beyond 64 bits"),
        ({1: 2}, "a key must be text, not int"),
        ({None: 2}, "a key must be text, not NoneType"),
        ({"a\0": 2}, "in a key: NUL"),
        ({"\ud800": 2}, "in a key: lone surrogate"),
        (nested(1, 65), "nested deeper than 64"),
        (nested(1, 100_000), "nested deeper than 64"),
    ],
)
def test_what_is_not_plain_json_is_refused_with_its_path_and_a_hint(value, says):
    wrapped = {"a": [0, value]}
    assert says in str(refusal(check_value, value, "x"))
    assert says in str(refusal(Codec(plain, "plain").encode, (value,), {}))
    error = refusal(check_value, wrapped, "x")
    assert error.field.startswith("x.a[1]")
    assert refusal(encode_plain, [wrapped], {}).field.startswith("args[0].a[1]")
    assert refusal(encode_plain, [], {"k": wrapped}).field.startswith("kwargs.k.a[1]")
    assert refusal(codec(int).encode_result, wrapped).field.startswith("result")


def test_a_lone_surrogate_is_refused_and_its_path_is_named():
    error = refusal(Codec(plain, "plain").encode, ([{"when": "\ud800"}],), {})
    assert error.field == "x[0].when"
    assert error.value == "\ud800"
    assert "plain: x[0].when: lone surrogate" in str(error)


@pytest.mark.parametrize("hint", [Any, list, dict[str, Any], list[Any]])
def test_a_value_that_contains_itself_is_refused(hint):
    loop: list = []
    loop.append(loop)
    ring: dict = {}
    ring["a"] = [ring]
    for value in (loop, ring):
        refusal(codec(hint).encode, (value,), {})
    assert "contains itself" in str(refusal(check_value, loop, "x"))


def test_a_recursive_dataclass_that_contains_itself_is_refused():
    order = Order(1)
    order.lines.append(order)
    refusal(codec(Order).encode, (order,), {})
    node = Node(None)
    node.next = node
    assert "contains itself" in str(refusal(codec(Node).encode, (node,), {}))


@dataclasses.dataclass
class Node:
    next: "Node | None"


def test_depth_64_is_taken_and_depth_65_is_refused():
    for hint in (Any, list[Any]):
        round_trip(hint, nested(1, 63))
        codec(hint).encode((nested(1, 64),), {})
        refusal(codec(hint).encode, (nested(1, 65),), {})
    parse_json("[" * 64 + "]" * 64, what="text")
    refusal(parse_json, "[" * 65 + "]" * 65, what="text")
    parse_json("[" * 67 + "]" * 67, what="text", max_depth=67)


def test_the_size_bound_is_exact_and_names_the_greatest_argument():
    made = Codec(lambda_free, "task")
    empty = len(made.encode(("", ""), {}))
    assert len(made.encode(("a", "x" * (MAX_BYTES - empty - 1)), {})) == MAX_BYTES
    assert refusal(made.encode, ("a", "x" * (MAX_BYTES - empty)), {}).field == "b"
    assert refusal(made.encode, ("é" * (MAX_BYTES // 2),), {"b": "x"}).field == "a"
    assert refusal(encode_plain, ["a"], {"b": "x" * MAX_BYTES}).field == "kwargs.b"
    assert refusal(made.from_json, ["a", "x" * MAX_BYTES], {}).field == "args[1]"


def test_missing_and_extra_arguments_are_refused_and_the_task_is_named():
    made = Codec(add, "sum")
    for call, says in [
        (((), {}), "missing a required argument: 'x'"),
        (((1, 2, 3), {}), "too many positional arguments"),
        (((1,), {"z": 1}), "unexpected keyword argument 'z'"),
        (((), {"xx": 1}), "unexpected keyword argument 'xx'"),
        (((1,), {"x": 1}), "multiple values for argument 'x'"),
    ]:
        for write in (made.encode, lambda a, k: made.from_json(list(a), k)):
            message = str(refusal(write, *call))
            assert message.startswith("sum: ")
            assert says in message
        args, kwargs = call
        text = json.dumps({"args": args, "kwargs": kwargs})
        assert says in str(refusal(made.decode, text))


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "1", "{}", '{"args":[1]}', '{"args":{},"kwargs":{}}', '{"args":[1],"kwargs":[]}',
        '{"args":[1],"kwargs":{},"more":1}', '{"args":[1,"kwargs":{}}', '{"args":["1"],"kwargs":{}}',
        '{"args":[1e999],"kwargs":{}}', '{"args":[NaN],"kwargs":{}}', '{"args":["\ud800"],"kwargs":{}}',
        '{"args":[' + "[" * 100_000 + "]" * 100_000 + '],"kwargs":{}}', '{"args":[' + "9" * 5000 + '],"kwargs":{}}',
    ],
)  # fmt: skip
def test_text_that_is_not_a_call_of_the_function_is_refused(text):
    refusal(Codec(add, "add").decode, text)


def test_deep_text_is_refused_without_a_recursion_error():
    text = '{"args":[' + "[" * 900 + "]" * 900 + '],"kwargs":{}}'
    for hint in (list[dt.datetime | list[Any]], dict[str, Any]):
        try:
            codec(hint).decode(text)
        except InvalidArguments:
            pass


def test_a_stored_instant_without_a_time_zone_is_refused():
    text = '{"args":[{"id":1,"when":"2026-01-01T00:00:00"}],"kwargs":{}}'
    assert refusal(codec(Order).decode, text).field == "x.when"
    assert refusal(codec(Order).from_json, json.loads(text)["args"], {}).field == "x.when"


def test_arguments_that_no_longer_fit_name_their_path():
    error = refusal(codec(Order).decode, '{"args":[{"id":"1"}],"kwargs":{}}')
    assert (error.field, error.value) == ("x.id", "1")
    assert "expected int, got str" in str(error)
    assert "missing required field id" in str(
        refusal(codec(Order).decode, '{"args":[{}],"kwargs":{}}')
    )


# From JSON


def test_values_from_json_are_converted_by_annotation():
    made = codec(dt.datetime)
    text = made.from_json(["2026-03-04T06:06:07.000089+01:00"], {})
    assert made.decode(text) == ((NOW,), {})
    assert codec(Color).from_json(["red"], {}) == '{"args":["red"],"kwargs":{}}'
    assert codec(float).from_json([2], {}) == '{"args":[2.0],"kwargs":{}}'
    assert codec(dict[int, str]).from_json([{"1": "a"}], {}) == '{"args":[{"1":"a"}],"kwargs":{}}'
    assert codec(Order).from_json([{"id": 1}], {}) == (
        # msgspec leaves the default of a missing field to the class, and so does not write it.
        '{"args":[{"id":1,"lines":[]}],"kwargs":{}}'
    )
    assert codec(User).from_json([], {"x": {"id": 1, "born": "2000-01-01"}}) == (
        '{"args":[],"kwargs":{"x":{"id":1,"born":"2000-01-01"}}}'
    )


def test_values_from_json_of_the_wrong_type_are_refused():
    for hint, value in [
        (int, "2"), (int, 2.0), (int, True), (dt.datetime, "yesterday"), (dt.datetime, "2026-01-01T00:00:00"),
        (Color, "green"), (User, {"id": "x"}), (bytes, "%%"), (int, math.nan), (str, "\0"), (list, nested(1, 99)),
    ]:  # fmt: skip
        refusal(codec(hint).from_json, [value], {})
    refusal(codec(int).from_json, "1", {})
    refusal(codec(int).from_json, [1], [])


# Results


def test_a_result_other_than_annotated_is_kept_if_json_can_keep_it():
    made = codec(Any, int)
    assert made.decode_result(made.encode_result("late")) == "late"
    assert made.decode_result(made.encode_result(None)) is None
    assert "expected list, got tuple" in str(refusal(codec(Any, list[int]).encode_result, (1,)))
    refusal(codec(Any, dt.datetime).encode_result, NOW.isoformat())


def test_a_result_whose_annotation_has_changed_is_read_as_plain_json():
    assert codec(Any, dt.datetime).decode_result('["a",1]') == ["a", 1]


def test_a_result_that_cannot_be_kept_is_refused():
    for value in (math.nan, "\0", {"a": "\ud800"}, object(), 2**63, nested(1, 65), "x" * MAX_BYTES):
        for hint in (Any, str, float, int, list):
            assert refusal(codec(Any, hint).encode_result, value).field.startswith("result")


# Functions that cannot be tasks


class WorkerRef:
    def method(self, x): ...

    @classmethod
    def of_class(cls): ...

    def __call__(self, x): ...


def generator(x):
    yield x


async def async_generator(x):
    yield x


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x, WorkerRef, WorkerRef.method, WorkerRef().method, WorkerRef.of_class, generator, async_generator, print,
        functools.partial(add, 1), WorkerRef(), staticmethod(add), functools.lru_cache(add), "add", None,
    ],
)  # fmt: skip
def test_what_is_not_a_plain_function_is_refused_at_decoration(function):
    with pytest.raises(ConfigurationError, match="task: ") as caught:
        Codec(function, "task")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "hint",
    [
        str | dt.datetime, User | int, Order | Line, pathlib.Path, complex, list[pathlib.Path], Iterator[int],
        dict[str, type], msgspec.Raw, collections.deque[int], "Nowhere", "1 +",
    ],
)  # fmt: skip
def test_an_annotation_that_cannot_be_told_apart_is_refused_at_decoration(hint):
    with pytest.raises(ConfigurationError, match="task: parameter x"):
        codec(hint)
    with pytest.raises(ConfigurationError, match="return"):
        codec(Any, hint)
