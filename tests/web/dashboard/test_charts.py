"""Charts: what their lines say."""

import json

import pytest

from jobqueue.overview import Point
from jobqueue.store.history import WAITING_MAX
from jobqueue.web.charts import area, lines, sparkline


@pytest.mark.parametrize("draw", [lambda points: area(points, "hour", of="a minute"), sparkline])
@pytest.mark.parametrize(("latest", "ends_at"), [(3, "300.0 0.0"), (12, "600.0 0.0")])
def test_a_line_does_not_fall_at_the_minute_that_has_only_begun(
    draw: object, latest: int, ends_at: str
) -> None:
    points = [Point("12:00", 5, 0), Point("12:01", 10, 0), Point("12:02", latest, 0)]
    line = str(draw(points)).split('class="line" d="')[1].split('"')[0]
    assert line.endswith(ends_at)


def test_a_line_of_what_waits_has_a_gap_where_nobody_counted() -> None:
    waiting = (5, 10, None, 0, None, None, WAITING_MAX)
    points = [Point(f"12:0{n}", 1, 0, each) for n, each in enumerate(waiting)]
    svg = str(area(points, "hour", of="a minute", waiting_top=10))
    line = svg.split('class="waiting" d="')[1].split('"')[0]
    assert line.startswith("M-1.5 50.0h3L100.0 0.0M298.5 100.0h3M598.5 ")
    assert "12:01 UTC: 1 done, 0 failed a minute, 10 waiting<" in svg
    assert "12:02 UTC: 1 done, 0 failed a minute, – waiting<" in svg and "100,000+ waiting" in svg
    assert "waiting" not in str(area(points, "hour", of="a minute"))


def test_the_lines_for_scripts_go_on_after_midnight_and_end_as_the_drawn_ones() -> None:
    points = [Point("23:58", 5, 0, 7), Point("23:59", 10, 2), Point("00:00", 3, 1, 0)]
    whole = [[1438, 1439, 1440], [5, 12, None], [0, 2, None], [7, None, 0]]
    assert json.loads(lines(points)) == whole
    points[-1] = Point("00:00", 12, 1, 0)
    assert json.loads(lines(points))[1:3] == [[5, 12, 13], [0, 2, 1]]
