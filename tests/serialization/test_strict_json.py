"""JSON text: what is read, what is refused, and with which place."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.errors import InvalidArguments
from jobqueue.serialization.json_values import (
    MAX_BYTES,
    check_value,
    encode_plain,
    parse_json,
)
from tests.serialization.codec_kit import Order, codec, exact, refusal

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
