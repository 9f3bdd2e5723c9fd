"""The options of a task or a call: what is refused, with which words, and how they are merged."""

import copy
import pickle
import pydoc
import random
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from jobqueue import JobQueue, Task
from jobqueue.errors import Cancel, InvalidOption, JobFailed, QueueFull, Retry, Snooze
from jobqueue.options import (
    ATTEMPTS_MAX,
    DEFAULT_BACKOFF,
    SECONDS_MAX,
    Backoff,
    OptionChanges,
    Options,
    TaskOptions,
    exponential,
    fixed,
    instant,
    seconds,
)
from jobqueue.records import AttemptError, lasting
from jobqueue.worker.observe.reporter import _short
from jobqueue.worker.settings import WorkerOptions

NAN, INF = float("nan"), float("inf")


def merged(**changes: Any) -> Options:
    return Options().merge(changes)


def refuse(field: str, value: object, **more: Any) -> InvalidOption:
    with pytest.raises(InvalidOption) as caught:
        merged(**{field: value, **more})
    error = caught.value
    assert isinstance(error, ValueError)
    assert str(error).startswith(f"{error.field}:")
    assert "\n" not in str(error) and "\0" not in str(error)
    assert len(str(error)) < 400
    return error


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (JobQueue.task, TaskOptions),
        (Task.options, OptionChanges),
        (JobQueue.worker, WorkerOptions),
    ],
)
def test_help_lists_the_options_with_their_defaults(function: Any, options: type) -> None:
    shown = pydoc.plain(pydoc.render_doc(function))
    listed = shown.partition("Options, with their defaults:")[2]
    assert re.findall(r"(\w+)=", listed) == [*options.__annotations__]
    assert re.search(r"queue='default', priority=0,|concurrency=4, async_concurrency=1000,", listed)
    assert max(map(len, shown.splitlines()[3:])) <= 100


def test_the_defaults_are_those_of_the_contract() -> None:
    options = Options()
    assert (options.queue, options.priority, options.max_attempts) == ("default", 0, 10)
    assert (options.delay, options.at, options.timeout, options.backoff) == (None,) * 4
    assert (options.unique_key, options.unique_until, options.tags) == (None, "finished", ())


def kind(value: object) -> str:
    """A test's name for a value that may be too long to print."""
    return type(value).__name__


# Names (rows 18 and 22)

NO_NAMES: list[object] = [
    *("", " ", "*", "a,b", "a b", "a\0", "-a", "--help", "a\n", "DROP TABLE jobs;", "../x", "a/b"),
    *(
        "\u0430dmin",
        "é",
        "名前",
        "🦆",
        "a'b",
        'a"b',
        "a%",
        "x" * 64,
        "x" * 1000,
        7,
        None,
        True,
        b"a",
        ["a"],
        ".",
        "..",
    ),
]


@pytest.mark.parametrize("value", NO_NAMES)
def test_what_is_no_name_is_no_queue(value: object) -> None:
    error = refuse("queue", value)
    assert error.field == "queue"
    assert error.value == value
    assert "letters, digits and _ . : -" in str(error) and "63" in str(error)


@pytest.mark.parametrize("value", ["a", "default", "mail-2", "A.b:c_d-9", "_", "9", ":x", "x" * 63])
def test_a_queue_has_a_plain_name(value: str) -> None:
    assert merged(queue=value).queue == value


# Whole numbers (rows 23 and 24)


@pytest.mark.parametrize(
    "value",
    ["high", "", "1", 1.5, 1.0, 2**31, -(2**31), 10**400, 10**5000, True, None, NAN],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_priority_is_refused_with_the_range(value: object) -> None:
    error = refuse("priority", value)
    assert error.field == "priority" and "whole number between -2147483647 and 2147483647" in str(
        error
    )


@pytest.mark.parametrize("value", [0, -1, 2**31 - 1, -(2**31) + 1])
def test_a_priority_is_a_whole_number_that_both_databases_hold(value: int) -> None:
    assert merged(priority=value).priority == value


@pytest.mark.parametrize("value", [0, -1, 10**9, 2.5, True, "3", None])
def test_what_is_no_number_of_attempts_is_refused_with_the_range(value: object) -> None:
    error = refuse("max_attempts", value)
    assert error.field == "max_attempts" and "between 1 and 1000000" in str(error)


@pytest.mark.parametrize("value", [1, 10, ATTEMPTS_MAX])
def test_attempts_are_at_least_one(value: int) -> None:
    assert merged(max_attempts=value).max_attempts == value


# Durations (row 25)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (90, 90.0),
        (0.5, 0.5),
        (timedelta(minutes=5), 300.0),
        ("90", 90.0),
        ("90s", 90.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("7d", 604_800.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("250ms", 0.25),
        (" 5 m ", 300.0),
        (SECONDS_MAX, SECONDS_MAX),
    ],
)
def test_a_duration_is_read(value: Any, expected: float) -> None:
    assert seconds(value, "delay") == expected
    assert merged(delay=value).delay == expected
    assert Snooze(value).delay == Retry(value).delay == expected


@pytest.mark.parametrize("value", ["5 minutes", "-5", "", True, [5], object()], ids=kind)
def test_a_signals_duration_is_refused_in_the_words_of_delay(value: Any) -> None:
    said = str(refuse("delay", value)).removeprefix("delay: ")
    for field, signal in (("seconds", Snooze), ("after", Retry)):
        with pytest.raises(InvalidOption) as refused:
            signal(value)
        assert (str(refused.value), refused.value.field) == (f"{field}: {said}", field)


@pytest.mark.parametrize(
    "error",
    [
        *(Snooze("5m"), Snooze(5, reason="later"), Retry("5m"), Retry(), Cancel("no")),
        QueueFull("full", queue="mail", max_pending=3, retry_after=1.5),
        JobFailed("no", (AttemptError("ValueError", "no", None),)),
        InvalidOption("delay: no", field="delay", value=-1),
    ],
    ids=kind,
)
def test_an_error_can_be_pickled_for_another_process_and_copied(error: Exception) -> None:
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(same) is type(error)
        assert (str(same), vars(same)) == (str(error), vars(error))


NO_DURATIONS: list[object] = [
    *("", "s", "5 minutes", "5m30", "-5", "nan", "inf", "1e3", "5 M", "٥", "1_000", "5mm", "0x10"),
    *(-5, -0.001, NAN, INF, -INF, 1e10, 10**30, 10**5000, timedelta(seconds=-1), timedelta.max),
    *(True, [5], b"5", 5j, "1" * 400),
]


@pytest.mark.parametrize("value", NO_DURATIONS, ids=kind)
def test_what_is_no_delay_is_refused(value: object) -> None:
    assert refuse("delay", value).field == "delay"


def test_a_delay_that_is_no_text_of_a_duration_is_refused_with_examples() -> None:
    assert "write 90, 90s, 5m, 1h or 7d" in str(refuse("delay", "5 minutes"))


def test_a_delay_of_more_than_ten_years_is_refused_with_the_bound() -> None:
    assert "at least 0 s and at most 3,660 days" in str(refuse("delay", SECONDS_MAX + 1))
    assert "deadline: 1.5 s from now" in str(refuse("deadline", 1.5, delay=2))
    assert str(Snooze(hours=24)) == "snoozed for 86,400 s"
    assert str(Snooze(400 * 86_400)) == "snoozed for 400 days"


def test_a_value_without_a_text_of_its_own_is_named_by_its_type() -> None:
    assert str(refuse("queue", object())).startswith("queue: an object is not a name")


def test_no_time_is_written_with_an_exponent() -> None:
    texts = map(lasting, (0, 0.001, 0.00001, 90, 1234567.8, 1e10))
    assert [*texts] == ["0 s", "0.001 s", "0.00001 s", "90 s", "14.3 days", "115,740.7 days"]
    shorts = map(_short, (0, 0.0123, 0.9996, 1.5, 999.6, 12345.6))
    assert [*shorts] == ["0 ms", "12.3 ms", "1 s", "1.5 s", "1,000 s", "12,346 s"]


# Instants (rows 26 to 28)


def test_an_instant_without_a_zone_is_refused_and_never_guessed() -> None:
    assert "no time zone" in str(refuse("at", datetime(2026, 12, 24, 18, 0)))
    with pytest.raises(InvalidOption, match="no time zone"):
        instant("2026-12-24T18:00")


@pytest.mark.parametrize(
    "value",
    [
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5))),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))),
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime(9999, 1, 1, tzinfo=UTC),
    ],
)
def test_an_instant_that_no_database_holds_is_refused(value: datetime) -> None:
    assert "out of range" in str(refuse("at", value))


@pytest.mark.parametrize(
    "value",
    [
        *(
            "10000-01-01T00:00Z",
            "infinity",
            "-infinity",
            "now",
            "",
            "2026-02-30T00:00Z",
            "tomorrow",
        ),
        *(
            "2026-01-01T00:00+25:00",
            "2026-01-01T00:00:60Z",
            "2026-13-01T00:00Z",
            "0000-01-01T00:00Z",
        ),
    ],
)
def test_what_is_no_instant_is_refused_with_an_example(value: str) -> None:
    with pytest.raises(InvalidOption, match=r"write 2026-12-24T18:00\+01:00") as caught:
        instant(value)
    assert caught.value.field == "at"


@pytest.mark.parametrize(
    "value", [0, 1.5, "2026-12-24T18:00Z"[:0] or None, datetime(2026, 1, 1).date()]
)
def test_what_is_no_datetime_is_refused(value: object) -> None:
    if value is not None:
        assert "is not a datetime" in str(refuse("at", value))


def test_an_instant_may_be_long_gone() -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert merged(at=epoch).at == epoch


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-24T18:00Z", datetime(2026, 12, 24, 18, tzinfo=UTC)),
        ("2026-12-24 18:00:00+01:00", datetime(2026, 12, 24, 17, tzinfo=UTC)),
        (" 2026-12-24T18:00:00.5+00:00 ", datetime(2026, 12, 24, 18, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_an_instant_is_read_from_text(text: str, expected: datetime) -> None:
    assert instant(text) == expected


def test_a_local_time_that_a_clock_skips_or_repeats_is_the_one_that_python_says() -> None:
    zone = ZoneInfo("Europe/Berlin")
    gap, fold = (
        datetime(2026, 3, 29, 2, 30, tzinfo=zone),
        datetime(2026, 10, 25, 2, 30, tzinfo=zone),
    )
    assert instant(gap).astimezone(UTC) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert instant(fold).astimezone(UTC) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert instant(fold.replace(fold=1)).astimezone(UTC) == datetime(
        2026, 10, 25, 1, 30, tzinfo=UTC
    )


def test_an_instant_near_the_last_year_is_one_in_utc_too() -> None:
    """Written as UTC, the year must still be one that Python reads back."""
    for value in (
        datetime(9998, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-14))),
        datetime(1970, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    ):
        assert instant(value).astimezone(UTC)


# Unique keys (row 31)


@pytest.mark.parametrize(
    "value", ["", "x" * 513, "x" * 10_000, "a\0b", "\ud800", {}, {"a": 1}, 7, True, b"k"]
)
def test_what_no_database_stores_as_a_key_is_refused(value: object) -> None:
    assert refuse("unique_key", value).field == "unique_key"


@pytest.mark.parametrize("value", [None, "k", " ", "🦆", "a\nb", "x" * 512])
def test_a_unique_key_is_any_text_of_some_length(value: str | None) -> None:
    assert merged(unique_key=value).unique_key == value


@pytest.mark.parametrize("value", ["", "Finished", "forever", None, 1, ["finished"], {}])
def test_an_unknown_scope_is_refused_with_the_known_ones(value: object) -> None:
    assert "finished, started, deleted" in str(refuse("unique_until", value))


# Backoff (row 34)


@pytest.mark.parametrize("base", [1, 0, -2, 1001, NAN, INF, True, "2", None, 10**400])
def test_a_base_that_does_not_grow_is_refused(base: Any) -> None:
    with pytest.raises(InvalidOption, match=r"\(1, 1000\]"):
        exponential(base)


@pytest.mark.parametrize("cap", [0, -1, NAN, INF, "long", SECONDS_MAX * 2, None])
def test_a_cap_is_a_duration(cap: Any) -> None:
    with pytest.raises(InvalidOption, match="backoff"):
        exponential(2, cap)
    with pytest.raises(InvalidOption, match="backoff"):
        fixed(cap)


@pytest.mark.parametrize("value", ["exponential", 30, (2, 3600), {"base": 2}])
def test_what_is_no_backoff_is_refused_with_an_example(value: object) -> None:
    assert "exponential(base=2, cap=3600) or fixed(30)" in str(refuse("backoff", value))


@pytest.mark.parametrize("base", [1.0001, 2, 10, 1000])
@pytest.mark.parametrize("attempt", [1, 2, 1000, ATTEMPTS_MAX])
def test_a_backoff_never_overflows_and_is_never_longer_than_its_cap(
    base: float, attempt: int
) -> None:
    delay = exponential(base, cap=60).delay(attempt)
    assert 0 < delay <= 60 * 1.25


def test_a_backoff_doubles_with_a_quarter_of_jitter() -> None:
    class Edge(random.Random):
        def __init__(self, place: int) -> None:
            super().__init__()
            self.place = place

        def uniform(self, a: float, b: float) -> float:
            return (a, b)[self.place]

    for attempt, plain in [(1, 2), (2, 4), (5, 32), (11, 2048), (12, 3600), (500, 3600)]:
        edges = [DEFAULT_BACKOFF.delay(attempt, Edge(place)) for place in (0, 1)]
        assert edges == pytest.approx([plain * 0.75, plain * 1.25])


def test_the_default_attempts_take_about_seventeen_minutes() -> None:
    whole = sum(Backoff(2.0, 3600.0, jitter=0).delay(attempt) for attempt in range(1, 10))
    assert whole == 1022


def test_a_fixed_backoff_is_always_the_same() -> None:
    assert {fixed(30).delay(attempt) for attempt in (1, 2, 1000)} == {30.0}


@pytest.mark.parametrize(
    "backoff", [exponential(), exponential(1.5, timedelta(hours=2)), fixed("5m")]
)
def test_a_backoff_is_stored_as_text(backoff: Backoff) -> None:
    assert Backoff.from_text(backoff.to_text()) == backoff


def test_a_small_cap_is_kept_from_the_first_attempt_on() -> None:
    assert exponential(2, cap=0.5).delay(1) <= 0.5 * 1.25


# Timeouts (row 62)


@pytest.mark.parametrize("value", [0, -1, NAN, INF, 0.0001, True, "soon", SECONDS_MAX * 2])
def test_what_is_no_timeout_is_refused(value: object) -> None:
    assert refuse("timeout", value).field == "timeout"


@pytest.mark.parametrize(
    ("value", "expected"), [(0.5, 0.5), ("30s", 30.0), (None, None), (90, 90.0)]
)
def test_a_timeout_is_a_duration_or_none(value: Any, expected: float | None) -> None:
    assert merged(timeout=value).timeout == expected


# Tags (row 59)


@pytest.mark.parametrize(
    "value", ["red", b"red", 7, None, ["a b"], ["x" * 64], [1], [f"t{n}" for n in range(33)]]
)
def test_what_is_no_list_of_names_is_refused(value: object) -> None:
    assert refuse("tags", value).field in ("tags", "tag")


def test_tags_are_kept_once_in_their_order() -> None:
    assert merged(tags=["b", "a", "b"]).tags == ("b", "a")
    assert merged(tags=(tag for tag in "xy")).tags == ("x", "y")


# Merging


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    error = refuse("prioritee", 1)
    assert error.field == "prioritee"
    for known in ("queue", "priority", "delay", "at", "max_attempts", "unique_key", "tags"):
        assert known in str(error)
    assert str(error).endswith("; did you mean priority?")


def test_what_is_not_changed_stays() -> None:
    first = merged(queue="mail", priority=3)
    second = first.merge({"priority": 4})
    assert (second.queue, second.priority, first.priority) == ("mail", 4, 3)


def test_delay_and_at_together_are_refused() -> None:
    assert "either delay or at" in str(refuse("delay", 5, at=datetime(2026, 1, 1, tzinfo=UTC)))


def test_the_later_of_delay_and_at_replaces_the_earlier() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert merged(delay=5).merge({"at": at}).delay is None
    assert merged(at=at).merge({"delay": 5}).at is None
    assert merged(at=at).merge({"delay": None}).at == at
    assert merged(at=at).merge({"at": None}).at is None


def test_none_as_delay_and_at_is_now() -> None:
    assert merged(delay=None, at=None) == Options()
    assert merged(delay=60).merge({"delay": None, "at": None}) == Options()


def test_nothing_changes_when_one_option_is_wrong() -> None:
    options = merged(queue="mail")
    with pytest.raises(InvalidOption):
        options.merge({"queue": "other", "priority": "high"})
    assert options == merged(queue="mail")
