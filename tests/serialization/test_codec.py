"""The codec: what is taken, what is refused, and with which path."""

import collections
import datetime as dt
import decimal
import functools
import math
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.errors import InvalidArguments
from jobqueue.serialization.codec import Codec
from jobqueue.serialization.json_values import encode_plain, parse_json
from tests.serialization.codec_kit import (
    NOW,
    UTC,
    Cat,
    Color,
    Dog,
    Level,
    Line,
    Name,
    Options,
    Order,
    Point,
    User,
    add,
    codec,
    exact,
    refusal,
    round_trip,
)

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
