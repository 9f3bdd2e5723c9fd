"""The codec: what is taken, what is refused, and with which path."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import json
import math
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.serialization.codec import MAX_BYTES, Codec, check_value, encode_plain, parse_json
from jobqueue.errors import ConfigurationError, InvalidArguments

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


# What is written


def test_the_text_is_compact_in_call_order_and_keeps_non_ascii():
    def task(a, b, **rest): ...

    text = Codec(task, "task").encode(("é",), {"b": {"z": 1, "a": 2}, "c": None})
    assert text == '{"args":["é"],"kwargs":{"b":{"z":1,"a":2},"c":null}}'


def test_defaults_are_not_stored():
    made = Codec(add, "add")
    assert made.encode((2,), {}) == '{"args":[2],"kwargs":{}}'
    assert made.decode('{"args":[2],"kwargs":{}}') == ((2,), {})


def test_a_set_is_written_in_the_same_order_by_every_process():
    program = (
        "from jobqueue.serialization.codec import Codec\n"
        "def task(x: set[str]): ...\n"
        "print(Codec(task, 'task').encode(({'a', 'b', 'c', 'd', 'e'},), {}))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            check=True,
            cwd=pathlib.Path(__file__).parents[2],
        ).stdout
        for seed in "123"
    }
    assert texts == {b'{"args":[["a","b","c","d","e"]],"kwargs":{}}\n'}


def test_a_set_of_items_without_an_order_among_them_comes_back_equal():
    made = codec(frozenset[int | str])  # Its text may differ from process to process.
    assert made.decode(made.encode((frozenset({1, "a"}),), {})) == ((frozenset({1, "a"}),), {})


def test_pydantic_is_not_imported_by_the_codec():
    program = "import sys, jobqueue.serialization.codec; print('pydantic' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert done.stdout == b"False\n"


# What comes back

TYPED = [
    (None, None),
    (bool, True),
    (int, -(2**63)),
    (int, 2**63 - 1),
    (int, 2**53 + 1),
    (float, -0.0),
    (float, 2),
    (float, 5e-324),
    (str, "é 😀 \u2028"),
    (bytes, b"\x00\xff"),
    (dt.datetime, NOW),
    (dt.datetime, dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Zurich"))),
    (dt.datetime, dt.datetime.max.replace(tzinfo=UTC)),
    (dt.date, dt.date(1, 1, 1)),
    (dt.time, dt.time(1, 2, 3, 4)),
    (dt.timedelta, dt.timedelta(days=-3, microseconds=1)),
    (uuid.UUID, uuid.UUID(int=5)),
    (decimal.Decimal, decimal.Decimal("1.10")),
    (Color, Color.RED),
    (Level, Level.LOW),
    (str, Name.A),
    (Order, Order(1, NOW, [Line("a", decimal.Decimal("0.1"))])),
    (Point, Point(1, 2.5)),
    (Options, {"depth": 3}),
    (Cat | Dog, Dog("rex")),
    (Cat | Dog | None, None),
    (int | str | None, "1"),
    (int | float, 1.0),
    (dt.datetime | None, NOW),
    (list[dt.date], [dt.date(2026, 1, 1)]),
    (Sequence[int], [1, 2]),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple, (1, [2])),
    (set[int], {3, 1, 2}),
    (frozenset[uuid.UUID], frozenset({uuid.UUID(int=1)})),
    (dict[int, str], {1: "a", -2: "b"}),
    (dict[Color, set[str]], {Color.RED: {"x"}, Color.BLUE: set()}),
    (dict[str, dict[str, list[Point]]], {"a": {"b": [Point(1, 2.0)]}}),
    (dict[str, int], collections.Counter("abca")),
    (Literal["a", 1], 1),
    (Annotated[int, msgspec.Meta(ge=1)], 1),
    (Any, {"a": [1, None, 2.5, True, "x"]}),
    (object, [1]),
    (dict[str, object], {"a": [1]}),
    (User, User(id=1, born=dt.date(2000, 1, 1))),
    (list[User | None], [User(id=1, born=dt.date(2000, 1, 1)), None]),
]


@pytest.mark.parametrize(("hint", "value"), TYPED)
def test_an_annotated_value_comes_back_equal_and_of_its_type(hint, value):
    back = round_trip(hint, value)
    if isinstance(value, dt.datetime):
        assert back.timestamp() == value.timestamp()
    else:
        assert back == value
    if hint is float:
        assert math.copysign(1, back) == math.copysign(1, value)
        assert type(back) is float
    elif isinstance(hint, type) and hint not in (str, object, Any) and hint is not Options:
        assert type(back) is hint


@pytest.mark.parametrize(("hint", "value"), TYPED)
def test_a_result_comes_back_equal(hint, value):
    made = codec(Any, hint)
    back = made.decode_result(made.encode_result(value))
    assert back == value or back.timestamp() == value.timestamp()


def test_variable_arguments_are_converted_one_by_one():
    def task(a: int, /, *days: dt.date, key: bytes = b"", **others: decimal.Decimal): ...

    made = Codec(task, "task")
    day, amount = dt.date(2026, 1, 1), decimal.Decimal("1.5")
    args, kwargs = (1, day, day), {"key": b"x", "b": amount, "a": amount}
    assert made.decode(made.encode(args, kwargs)) == (args, kwargs)
    assert refusal(made.encode, (1, day, "x"), {}).field == "days[1]"
    assert refusal(made.encode, (1,), {"b": 1}).field == "b"


def test_a_function_without_parameters_has_a_codec():
    def task() -> None: ...

    made = Codec(task, "task")
    assert made.decode(made.encode((), {})) == ((), {})
    assert made.decode_result(made.encode_result(None)) is None


def test_a_required_keyword_is_required():
    def task(x: int = 0, *, y: int): ...

    made = Codec(task, "task")
    assert "missing a required" in str(refusal(made.encode, (1,), {}))
    assert "missing a required" in str(refusal(made.decode, '{"args":[1],"kwargs":{}}'))
    assert made.decode(made.encode((), {"y": 2})) == ((), {"y": 2})


def test_annotations_as_text_are_resolved():
    def task(x: "dt.datetime") -> "int": ...

    made = Codec(task, "task")
    assert made.decode(made.encode((NOW,), {})) == ((NOW,), {})


def test_a_wrapped_function_keeps_its_signature():
    @functools.wraps(add)
    def wrapper(*args, **kwargs): ...

    assert "expected int" in str(refusal(Codec(wrapper, "add").encode, ("2",), {}))


def test_a_coroutine_function_has_a_codec():
    async def task(x: int) -> dt.date: ...

    made = Codec(task, "task")
    assert made.decode_result(made.encode_result(dt.date(2026, 1, 1))) == dt.date(2026, 1, 1)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
integers = st.integers(-(2**63), 2**63 - 1)
zones = st.timezones() | st.just(UTC) | st.none()


def exact(value: object) -> object:
    return json.dumps(value)


@given(json_values)
@settings(deadline=None)
def test_plain_json_comes_back_exactly(value):
    back = round_trip(Any, value)
    assert exact(back) == exact(value)
    text = encode_plain([value], {"x": value})
    assert exact(parse_json(text, what="text")) == exact({"args": [value], "kwargs": {"x": value}})


@given(st.from_type(object) | json_values | st.binary() | st.complex_numbers() | st.floats())
@settings(deadline=None)
def test_any_value_at_all_is_refused_or_comes_back_equal(value):
    for hint in (Any, int, dt.datetime, list[Any], dict[str, Any], int | str | None, float):
        try:
            back = round_trip(hint, value)
        except InvalidArguments:
            continue
        assert back == value


typed_values = st.one_of(
    st.tuples(
        st.just(Point), st.builds(Point, integers, st.floats(allow_nan=False, allow_infinity=False))
    ),
    st.tuples(st.just(tuple[int, ...]), st.lists(integers).map(tuple)),
    st.tuples(st.just(dict[int, list[str]]), st.dictionaries(integers, st.lists(texts))),
    st.tuples(
        st.just(int | str | None | list[bytes]),
        integers | texts | st.none() | st.lists(st.binary()),
    ),
    st.tuples(st.just(set[dt.date]), st.sets(st.dates())),
    st.tuples(st.just(frozenset[str]), st.frozensets(texts)),
    st.tuples(st.just(Cat | Dog), st.builds(Cat, integers) | st.builds(Dog, texts)),
    st.tuples(
        st.just(Options), st.fixed_dictionaries({}, optional={"depth": integers, "label": texts})
    ),
    st.tuples(
        st.just(list[Order]),
        st.lists(
            st.builds(
                Order,
                integers,
                st.none() | st.datetimes(timezones=st.just(UTC)),
                st.lists(
                    st.builds(Line, texts, st.decimals(allow_nan=False, allow_infinity=False))
                ),
            )
        ),
    ),
)


@given(typed_values)
@settings(deadline=None)
def test_typed_values_come_back_equal(case):
    hint, value = case
    assert round_trip(hint, value) == value


@given(st.datetimes(timezones=zones) | st.times() | st.timedeltas() | st.decimals() | st.uuids())
@settings(deadline=None, max_examples=300)
def test_instants_and_numbers_come_back_equal_or_are_refused(value):
    made = codec(type(value))
    try:
        text = made.encode((value,), {})
    except InvalidArguments as error:
        assert error.field == "x"
        # Not instants; zones of the past with seconds in their offset; NaN.
        offset = value.utcoffset() if isinstance(value, dt.datetime) else None
        assert (
            (isinstance(value, dt.datetime) and (offset is None or offset.seconds % 60))
            or (isinstance(value, decimal.Decimal) and not value.is_finite())
            or (isinstance(value, dt.timedelta) and abs(value.days) > 9_000_000)
        )
        return
    ((back,), _) = made.decode(text)
    if isinstance(value, dt.datetime):
        # Not ==: between zones it is false in the hour that a clock change repeats.
        def ticks(at):
            return (
                at.replace(tzinfo=None) - at.utcoffset()
                if dt.MINYEAR < at.year < dt.MAXYEAR
                else at
            )

        assert ticks(back) == ticks(value)
    else:
        assert back == value


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


def lambda_free(a: str, b: str): ...


def test_missing_and_extra_arguments_are_refused_and_the_task_is_named():
    made = Codec(add, "sum")
    for call, says in [
        (((), {}), "missing a required argument: 'x'"),
        (((1, 2, 3), {}), "too many positional arguments"),
        (((1,), {"z": 1}), "unexpected keyword argument 'z'"),
        (((), {"xx": 1}), "unexpected keyword argument 'xx'"),
        (((1,), {"x": 1}), "multiple values for argument 'x'"),
    ]:
        for doors in (made.encode, lambda a, k: made.from_json(list(a), k)):
            message = str(refusal(doors, *call))
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


# Text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "offset 0"),
        ("[1, NaN]", "NaN is not JSON"),
        ('["NaN", -Infinity]', "-Infinity is not JSON"),
        ("[1e999]", "number out of range: 1e999"),
        ('{"a":{"x":1},"b":{"x":1,"y":2,"x":3}}', "duplicate key 'x'"),
        ('{"a":[{"b":1}],"\\u0061":2}', "duplicate key 'a'"),
        ("[9223372036854775808]", "integer beyond 64 bits: 9223372036854775808"),
        ("9" * 5000, "integer beyond 64 bits"),
        ("-" + "9" * 5000, "integer beyond 64 bits"),
        ('["\\u0000"]', "text[0]: NUL"),
        ('{"\\u0000":1}', "in a key: NUL"),
        ('["\\ud800"]', "text[0]: lone surrogate"),
        ("[" * 100_000, "nested deeper than 64"),
        ("[" * 100_000 + "]" * 100_000, "nested deeper than 64"),
        ('{"a":' * 100_000, "nested deeper than 64"),
        ("'a'", "offset 0"),
        ("[1,]", "offset"),
        ('["a\nb"]', "character at offset 3"),
        ('"' + "x" * MAX_BYTES, "1,048,577 bytes, at most 1,048,576"),
        (b'["\xff"]', "invalid UTF-8 at byte offset 2"),
        ('["é\udcff"]', "invalid UTF-8 at byte offset 4"),
        ('["\ud800"]', "lone surrogate at offset 2"),
        ("\ufeff[]", "BOM"),
        ("[1] [2]", "offset 4"),
        ("0x10", "offset 1"),
    ],
)
def test_text_that_is_not_strict_json_is_refused_with_its_place(text, says):
    error = refusal(parse_json, text, what="text")
    assert says in str(error)
    assert error.field.startswith("text")


def test_strict_json_text_is_read():
    assert parse_json(b'{"a": [1, -0, 9223372036854775807, 1.5, "\xc3\xa9", null, true]}', what="x") == {
        "a": [1, 0, 2**63 - 1, 1.5, "é", None, True]
    }  # fmt: skip


@given(st.text() | st.binary() | st.text('[]{}",:0123456789eE.-+\\untrfalsN I', max_size=40))
@settings(deadline=None, max_examples=500)
def test_any_text_at_all_is_read_or_refused(text):
    try:
        value = parse_json(text, what="text")
    except InvalidArguments:
        return
    check_value(value, "text")
    assert exact(parse_json(encode_plain([value], {}), what="text")["args"][0]) == exact(value)


def test_an_offender_whose_repr_raises_is_still_named():
    class Nasty:
        def __repr__(self):
            raise RuntimeError

        def __eq__(self, other):
            raise RuntimeError

        __hash__ = None

    for hint in (Any, int, list, Order):
        refusal(codec(hint).encode, (Nasty(),), {})
        refusal(codec(hint).encode, ([Nasty()],), {})


def test_a_dictionary_key_beyond_64_bits_is_refused():
    refusal(codec(dict[int, int]).encode, ({2**70: 1},), {})


# Pydantic's aliases


def aliased() -> list[tuple[Any, Any]]:
    """Models and values whose names differ by direction."""
    from pydantic import AliasChoices, AliasGenerator, AliasPath, BaseModel, ConfigDict, Field
    from pydantic.alias_generators import to_camel

    class Read(BaseModel):
        user_id: int = Field(default=0, validation_alias="userId")

    class Written(BaseModel):
        user_id: int = Field(serialization_alias="userId")

    class Both(BaseModel):
        model_config = ConfigDict(
            alias_generator=AliasGenerator(validation_alias=str.upper, serialization_alias=to_camel)
        )
        user_id: int

    class Path(BaseModel):
        first: int = Field(validation_alias=AliasPath("all", 0))

    class Choices(BaseModel):
        value: int = Field(default=0, validation_alias=AliasChoices("V", AliasPath("all", 0)))

    class Outer(BaseModel):
        model_config = ConfigDict(extra="forbid")
        inner: list[Read]
        by_name: dict[str, Choices] = Field(alias="byName")

    class Cat(BaseModel):
        kind: Literal["cat"] = Field("cat", validation_alias="Kind")

    class Dog(BaseModel):
        kind: Literal["dog"] = Field("dog", validation_alias="Kind")

    class Owner(BaseModel):
        pet: Annotated[Cat | Dog, Field(discriminator="kind")]

    class OnlyNames(BaseModel):
        model_config = ConfigDict(validate_by_alias=False, validate_by_name=True)
        user_id: int = Field(alias="userId")

    class Same(BaseModel):
        user_id: int = Field(alias="userId")

    class Either(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        user_id: int = Field(alias="userId")

    return [
        (Read, Read(userId=1)),
        (Written, Written(user_id=1)),
        (Both, Both(USER_ID=1)),
        (Path, Path(all=[1])),
        (Choices, Choices(V=1)),
        (Outer, Outer(inner=[Read(userId=1)], byName={"a": Choices(V=2)})),
        (Owner, Owner(pet=Dog(Kind="dog"))),
        (OnlyNames, OnlyNames(user_id=1)),
        (Same, Same(userId=1)),
        (Either, Either(user_id=1)),
        (list[Read], [Read(userId=1)]),
        (Read | None, Read(userId=1)),
    ]


@pytest.mark.parametrize(("kind", "value"), aliased(), ids=lambda item: str(item)[:40])
def test_a_model_comes_back_equal_whatever_its_aliases(kind: Any, value: Any) -> None:
    def echo(x): ...

    echo.__annotations__ = {"x": kind, "return": kind}
    codec = Codec(echo, "echo")
    assert codec.decode(codec.encode((value,), {})) == ((value,), {})
    assert codec.decode_result(codec.encode_result(value)) == value


def configured() -> list[tuple[Any, Any]]:
    """Models whose configuration or fields make reading back more than reading what is there."""
    from pydantic import (
        AwareDatetime,
        BaseModel,
        ConfigDict,
        Field,
        PrivateAttr,
        RootModel,
        computed_field,
    )

    class Strict(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
        at: AwareDatetime
        price: decimal.Decimal
        tags: tuple[str, ...] = ()
        ids: frozenset[uuid.UUID] = frozenset()

    class Computed(BaseModel):
        model_config = ConfigDict(extra="forbid")
        a: int

        @computed_field
        @property
        def double(self) -> int:
            return 2 * self.a

    class Private(BaseModel):
        a: int
        _b: int = PrivateAttr(default=1)

    class Excluded(BaseModel):
        a: int
        b: int = Field(default=0, exclude=True)

    class Box(BaseModel, Generic[T]):
        item: T

    class Ids(RootModel[list[int]]): ...

    class Extra(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int

    return [
        (
            Strict,
            Strict(
                at=NOW,
                price=decimal.Decimal("1.10"),
                tags=("a",),
                ids=frozenset({uuid.UUID(int=1)}),
            ),
        ),
        (Computed, Computed(a=1)),
        (Private, Private(a=1)),
        (Excluded, Excluded(a=1)),
        (Box[int], Box[int](item=1)),
        (Box[Strict], Box[Strict](item=Strict(at=NOW, price=decimal.Decimal(1)))),
        (Ids, Ids([1, 2])),
        (Extra, Extra(a=1, b="x", c=[1.5, {"d": None}])),
        (dict[str, Computed], {"a": Computed(a=1)}),
        (Ids | None, Ids([])),
    ]


@pytest.mark.parametrize(("kind", "value"), configured(), ids=lambda item: str(item)[:40])
def test_a_model_comes_back_equal_and_of_its_type_however_it_is_configured(
    kind: Any, value: Any
) -> None:
    back = round_trip(kind, value)
    assert (type(back), back) == (type(value), value)
    if isinstance(value, pydantic.BaseModel):
        assert back.model_extra == value.model_extra
    made = codec(Any, kind)
    assert made.decode_result(made.encode_result(value)) == value


def lossy() -> list[tuple[Any, Any, str]]:
    """Models and values that cannot come back equal, and what is said of them."""
    from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

    class Secret(BaseModel):
        token: SecretStr

    class Excluded(BaseModel):
        a: int
        b: int = Field(default=0, exclude=True)

    class Private(BaseModel):
        a: int
        _b: int = PrivateAttr(default=1)

    class Number(BaseModel):
        x: float

    class Extra(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int

    changed = Private(a=1)
    changed._b = 2
    return [
        (Secret, Secret(token="hush"), "would come back as"),
        (list[Secret], [Secret(token="hush")], "would come back as"),
        (Excluded, Excluded(a=1, b=5), "would come back as"),
        (Private, changed, "would come back as"),
        (Number, Number(x=math.nan), "NaN"),
        (Number, Number(x=-math.inf), "Infinity"),
        (Extra, Extra(a=1, b=NOW), "would come back as"),
    ]


@pytest.mark.parametrize(("kind", "value", "says"), lossy(), ids=lambda item: str(item)[:40])
def test_a_model_that_would_not_come_back_equal_is_refused(
    kind: Any, value: Any, says: str
) -> None:
    made = codec(kind, kind)
    for error in (
        refusal(made.encode, (value,), {}),
        refusal(made.encode, (), {"x": value}),
        refusal(made.encode_result, value),
    ):
        assert says in str(error)
        assert "hush" not in str(error)


def test_a_model_is_kept_under_its_aliases_where_it_is_read_by_them() -> None:
    from pydantic import BaseModel, Field

    class Same(BaseModel):
        user_id: int = Field(alias="userId")

    class Read(BaseModel):
        user_id: int = Field(validation_alias="userId")

    def one(x): ...

    one.__annotations__ = {"x": Same}
    assert Codec(one, "one").encode((Same(userId=1),), {}) == '{"args":[{"userId":1}],"kwargs":{}}'
    one.__annotations__ = {"x": Read}
    codec = Codec(one, "one")
    assert codec.encode((Read(userId=1),), {}) == '{"args":[{"user_id":1}],"kwargs":{}}'
    # What others enqueue may have either.
    for key in ("userId", "user_id"):
        text = codec.from_json([{key: 1}], {})
        assert codec.decode(text) == ((Read(userId=1),), {})


def test_a_name_that_is_another_fields_alias_is_refused_at_definition() -> None:
    from pydantic import BaseModel, Field

    class Swapped(BaseModel):
        a: int = Field(validation_alias="b")
        b: int = Field(validation_alias="a")

    def echo(x): ...

    echo.__annotations__ = {"x": list[Swapped]}
    with pytest.raises(ConfigurationError, match="Swapped.*'a' is the name of one field.*'b'"):
        Codec(echo, "echo")


def test_an_older_pydantic_that_cannot_read_by_name_refuses_at_definition(monkeypatch) -> None:
    from pydantic import BaseModel, Field

    class Read(BaseModel):
        user_id: int = Field(validation_alias="userId")

        @classmethod
        def model_validate_json(cls, text): ...

    def echo(x): ...

    echo.__annotations__ = {"x": Read}
    with pytest.raises(ConfigurationError, match="other names than it is read by.*2.11"):
        Codec(echo, "echo")


def test_a_function_that_never_returns_is_taken() -> None:
    from typing import Never, NoReturn

    def give_up(x: int) -> NoReturn:
        raise ValueError

    def never(x: int) -> Never:
        raise ValueError

    for function in (give_up, never):
        codec = Codec(function, "give_up")
        assert codec.decode(codec.encode((1,), {})) == ((1,), {})
        assert codec.decode_result("null") is None


def test_arguments_that_a_decorator_gives_itself_say_what_it_must_set() -> None:
    import functools

    def store(session: str, x: int) -> str: ...

    @functools.wraps(store)
    def wrapper(*args): ...

    with pytest.raises(InvalidArguments, match="__signature__"):
        Codec(wrapper, "wrapper").encode((7,), {})
    with pytest.raises(InvalidArguments) as caught:
        Codec(store, "store").encode((7,), {})
    assert "__signature__" not in str(caught.value)
