"""Charts: what their lines say."""

import pytest

from jobqueue.overview import Point
from jobqueue.store.history import WAITING_MAX
from jobqueue.web.charts import area, sparkline


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
