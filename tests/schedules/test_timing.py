"""When schedules run: compared with an oracle that knows only wall times and offsets, over every zone and clock change to 2037."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobqueue import InvalidOption, cron, every
from jobqueue.schedules.timing import INTERVAL_MAX, Cron, _zones

SECOND, MINUTE, HOUR, DAY = (
    timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days")
)
FIRST, LAST = datetime(2026, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC)
ZURICH = "Europe/Zurich"
SPRING, AUTUMN = datetime(2027, 3, 28, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)


def offset(instant: datetime, zone: ZoneInfo) -> timedelta | None:
    return instant.astimezone(zone).utcoffset()


def changes(zone: ZoneInfo) -> Iterator[tuple[datetime, timedelta | None, timedelta | None]]:
    """Each change of a zone's offset: the first instant with the new one, the old one, the new one."""
    start = FIRST
    while start < LAST:
        end = start + 7 * DAY
        before, after = offset(start, zone), offset(end, zone)
        low, high = start, end
        while before != after and high - low > SECOND:
            middle = (low + (high - low) / 2).replace(microsecond=0)
            low, high = (middle, high) if offset(middle, zone) == before else (low, middle)
        if before != after:
            yield high, before, after
        start = end


@cache
def rules() -> dict[str, list[datetime]]:
    """One zone for each set of clock changes that zones have until 2037, and the instants of them."""
    distinct = {tuple(changes(ZoneInfo(name))): name for name in sorted(_zones(), reverse=True)}
    return {name: [at for at, _, _ in made] for made, name in distinct.items()}


def oracle(
    zone: ZoneInfo, minutes: set[int], hours: set[int], start: datetime, end: datetime
) -> list[datetime]:
    """The runs in (start, end]: minute by minute, without any search."""
    if len(hours) == 24:  # Real time: each minute whose wall clock shows it.
        count = int((end - start) / MINUTE) + 1
        instants = [start.replace(second=0) + n * MINUTE for n in range(count + 1)]
        return [
            at for at in instants if start < at <= end and at.astimezone(zone).minute in minutes
        ]
    found = set()
    day = (
        (start - 2 * DAY)
        .astimezone(zone)
        .replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    )
    while day.replace(tzinfo=UTC) < end + 2 * DAY:
        for wall in (day.replace(hour=hour, minute=minute) for hour in hours for minute in minutes):
            # In a gap the offsets of the two folds differ, and give instants around it: not this wall time.
            while (at := wall.replace(tzinfo=zone).astimezone(UTC)).astimezone(zone).replace(
                tzinfo=None
            ) != wall:
                wall += MINUTE
            found.add(at)
        day += DAY
    return sorted(at for at in found if start < at <= end)


def near(change: datetime, zone: ZoneInfo, pick: random.Random) -> tuple[str, set[int], set[int]]:
    """An expression with runs around a clock change, and the minutes and hours that it names."""
    wall = (change - SECOND).astimezone(zone)
    minutes = set(pick.sample([0, 15, 30, 45, 59], pick.randint(1, 3)))
    hours = {(wall.hour + pick.randint(-2, 3)) % 24 for _ in range(pick.randint(1, 4))}
    kind = pick.randrange(4)
    if kind == 0:
        return f"{','.join(map(str, minutes))} * * * *", minutes, set(range(24))
    if kind == 1:
        return f"{','.join(map(str, minutes))} */2 * * *", minutes, set(range(0, 24, 2))
    if kind == 2:
        return f"*/20 {','.join(map(str, hours))} * * *", {0, 20, 40}, hours
    return f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * *", minutes, hours


def check(name: str, change: datetime, pick: random.Random) -> None:
    zone = ZoneInfo(name)
    expression, minutes, hours = near(change, zone, pick)
    timing = cron(expression, tz=name)
    start = change - timedelta(seconds=pick.randint(0, 40 * 3600))
    end = change + 40 * HOUR
    runs = list(takewhile(lambda run: run <= end, timing.after(start)))
    told = f"{expression} in {name} from {start}"
    assert runs == oracle(zone, minutes, hours, start, end), told
    assert all(a < b for a, b in pairwise([start, *runs])), told
    # Whatever the start, also in the second pass of an hour, the next run is the same.
    for instant in (change + pick.uniform(-3, 3) * HOUR, change - SECOND, change):
        expected = next(run for run in timing.after(change - 2 * DAY) if run > instant)
        assert timing.next_after(instant) == expected, f"{told}, {instant}"


def test_each_nominal_time_runs_once_or_at_the_first_instant_after_a_gap() -> None:
    pick = random.Random(20261128)
    for name, made in rules().items():
        for change in pick.sample(made, min(len(made), 3)):
            check(name, change, pick)
    assert "America/Godthab" in rules() or "America/Nuuk" in rules()


@pytest.mark.timing  # Not that it measures: it takes a minute.
@pytest.mark.timeout(900)
def test_each_clock_change_of_each_zone_until_2037_is_like_that() -> None:
    pick = random.Random()
    for name, made in rules().items():
        for change in made:
            for _ in range(4):
                check(name, change, pick)


def shown(expression: str, day: datetime, tz: str = ZURICH) -> list[str]:
    runs = cron(expression, tz=tz).preview(day - 24 * HOUR, day + 24 * HOUR)
    return [f"{run.at:%d %H:%M%z}" + ("" if run.note is None else f" {run.note}") for run in runs]


@pytest.mark.parametrize(
    ("expression", "day", "expected"),
    [
        ("30 2 * * *", SPRING, "28 03:00+0200 moved: 02:30 is skipped by a clock change"),
        ("0,30 2 * * *", SPRING, "28 03:00+0200 moved: 02:00 is skipped by a clock change"),
        ("0 2,3 * * *", SPRING, "28 03:00+0200 moved: 02:00 is skipped by a clock change"),
        ("0 3 * * *", SPRING, "28 03:00+0200"),
        ("30 2 * * *", AUTUMN, "25 02:30+0200 once: 02:30 occurs twice, the first one counts"),
    ],
)
def test_a_preview_marks_what_a_clock_change_concerns(
    expression: str, day: datetime, expected: str
) -> None:
    assert [line for line in shown(expression, day) if line.startswith(expected[:2])] == [expected]


def test_what_runs_every_hour_follows_real_time() -> None:
    for expression in ("0 * * * *", "0 0-23 * * *", "0 */1 * * *", "@hourly"):
        for day in (SPRING, AUTUMN):
            runs = list(cron(expression, tz=ZURICH).preview(day - 5 * HOUR, day + 5 * HOUR))
            assert {b.at.astimezone(UTC) - a.at.astimezone(UTC) for a, b in pairwise(runs)} == {
                HOUR
            }
            assert {run.note for run in runs} == {None}


def test_a_half_hour_that_occurs_twice_gives_an_hourly_minute_of_it_both_times() -> None:
    howe = cron("45 * * * *", tz="Australia/LHI")  # At 02:00 the clocks go back to 01:30.
    change = datetime(2027, 4, 3, 15, tzinfo=UTC)
    runs = list(howe.preview(change - HOUR, change + HOUR))
    assert [f"{run.at:%H:%M%z}" for run in runs] == ["01:45+1100", "01:45+1030"]


def test_a_skipped_midnight_runs_on_the_next_date() -> None:
    godthab = "America/Godthab"  # On 2027-03-27 the clocks go from 23:00 to 00:00 of the 28th.
    runs = shown("30 23 * * *", datetime(2027, 3, 28, 1, tzinfo=UTC), godthab)
    assert [run[:8] for run in runs] == ["26 23:30", "28 00:00", "28 23:30"]


@given(
    st.sampled_from(
        ["* * * * *", "*/7 3 * * *", "0 0 1 * *", "0 0 29 2 *", "* * 1 1 *", "30 2 L * *"]
    ),
    st.datetimes(datetime(2026, 1, 1), datetime(2032, 1, 1), timezones=st.just(UTC)),
    st.timedeltas(timedelta(0), timedelta(days=4000)),
)
@settings(max_examples=60, deadline=None)
def test_the_latest_run_of_a_time_is_the_one_without_another_behind_it(
    expression: str, start: datetime, passed: timedelta
) -> None:
    timing = cron(expression, tz=ZURICH)
    first = timing.next_after(start)
    latest = timing.latest(first, first + passed)
    assert first <= latest <= first + passed < timing.next_after(latest)
    assert latest == first or timing.next_after(latest - SECOND) == latest


@given(
    st.integers(1, INTERVAL_MAX),
    st.datetimes(datetime(1970, 1, 2), datetime(2037, 1, 1), timezones=st.just(UTC)),
)
def test_an_interval_counts_from_the_epoch(seconds: int, start: datetime) -> None:
    timing = every(seconds=seconds)
    runs = list(islice(timing.after(start), 2))
    assert [run.timestamp() % seconds for run in runs] == [0, 0]
    assert start < runs[0] <= start + seconds * SECOND == runs[1] - (runs[0] - start)
    assert timing.latest(runs[0], runs[1] - SECOND / 2) == runs[0]


def test_timings_are_values_that_print_as_they_are_written() -> None:
    assert cron("0  3 * * *") == cron("0 3 * * *", tz="UTC")
    assert cron("@Daily").expression == "@daily"
    assert [every(**{unit: 90}).text for unit in ("seconds", "minutes", "hours", "days")] == [
        "90s",
        "90m",
        "90h",
        "90d",
    ]
    assert every(hours=1, minutes=-0.0, seconds=0) == every(minutes=60)


@pytest.mark.parametrize(
    ("expression", "tz", "part"),
    [
        ("", "UTC", "0 fields, not 5"),
        ("3", "UTC", "it has 1 field, not 5"),
        (
            "0 30 2 * * *",
            "UTC",
            "6 fields, not 5: minute hour day month weekday; for seconds use every(seconds=…)",
        ),
        (
            "*/0 * * * *",
            "UTC",
            "'*/0 * * * *': bad minute: '*/0' is not a valid value, range or step; "
            "write * or 0 to 59",
        ),
        ("0 5-2 * * *", "UTC", "bad hour: '5-2' is not a valid value, range or step; write * or"),
        ("0 24 * * *", "UTC", "'24' is not a valid value, range or step; write * or 0 to 23"),
        (
            "0 0 30 2 *",
            "UTC",
            "bad day-of-month: '30' is not a valid value, range or step; "
            "write *, 1 to 31 as the months have, or L for the last",
        ),
        ("0 0 1,,2 * *", "UTC", "bad day-of-month: '1,,2' is not a valid value, range or step;"),
        ("0 0 1 13 *", "UTC", "step; write * or 1 to 12, or JAN to DEC"),
        ("0 0 * * 8", "UTC", "bad day-of-week: '8' is not a valid value, range or step; write *"),
        ("0 0 */29 2 MON#5", "UTC", "it never runs"),
        ("@often", "UTC", "of the names there are @hourly"),
        ("1" * 101, "UTC", "101 characters"),
        (None, "UTC", "it is not text"),
        ("0 3 * * *", "europe/zurich", "did you mean Europe/Zurich"),
        ("0 3 * * *", "localtime", "not a known time zone"),
        ("0 3 * * *", "../../etc/passwd", "not a known time zone"),
        ("0 3 * * *", None, "not a known time zone"),
        ("0 3 * * *", [], "not a known time zone"),
    ],
)
def test_a_wrong_expression_is_refused_in_one_line(expression: str, tz: str, part: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        cron(expression, tz=tz)
    assert part in str(refused.value) and len(str(refused.value).splitlines()) == 1
    assert refused.value.field in ("cron", "tz")


@given(st.text("0123456789*/,-#LW SUNMON²\0@", max_size=40), st.text(max_size=8))
@settings(max_examples=50, deadline=None)
@example("5L/2 * * * *", "").via("an assertion in a parser")
def test_any_text_is_an_expression_or_refused(expression: str, more: str) -> None:
    try:
        assert isinstance(cron(f"{expression} {more}").next_after(FIRST), datetime)
    except InvalidOption as refused:
        assert refused.field == "cron"


@pytest.mark.parametrize(
    "given",
    [{}, {"seconds": 0}, {"seconds": -1}, {"seconds": 0.5}, {"days": 3661}, {"hours": float("nan")}]
    + [{"hours": float("inf")}, {"minutes": True}, {"minutes": "5"}, {"weeks": 10**400}],
)
def test_a_wrong_interval_is_refused_in_one_line(given: dict[str, float]) -> None:
    with pytest.raises(InvalidOption, match=r"^every: .+$"):
        every(**given)


def test_a_zone_means_the_same_on_every_host() -> None:
    assert Cron("0 3 * * *", "Asia/Kolkata").next_after(FIRST) == datetime(
        2026, 1, 1, 21, 30, tzinfo=UTC
    )
