"""Charts: what their lines say."""

import pytest

from jobqueue.overview import Point
from jobqueue.web.charts import area, sparkline


@pytest.mark.parametrize("draw", [lambda points: area(points, "hour", of="a minute"), sparkline])
@pytest.mark.parametrize(("latest", "ends_at"), [(3, "300.0 0.0"), (12, "600.0 0.0")])
def test_a_line_does_not_fall_at_the_minute_that_has_only_begun(
    draw: object, latest: int, ends_at: str
) -> None:
    points = [Point("12:00", 5, 0), Point("12:01", 10, 0), Point("12:02", latest, 0)]
    line = str(draw(points)).split('class="line" d="')[1].split('"')[0]
    assert line.endswith(ends_at)
