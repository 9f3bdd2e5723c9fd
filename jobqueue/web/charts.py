"""Charts as SVG, drawn on the server. Their size and colours are the style sheet's.

Where scripts run, `static/chart.js` draws the large one again, from the same points.
"""

import json
from collections.abc import Sequence

from markupsafe import Markup

from jobqueue.display import counted_waiting
from jobqueue.overview import DAY, HOUR, Point, whole_spans

WIDTH, HEIGHT = 600, 100
"""Of the drawing; the page stretches it."""
_STEPS = (1, 2, 5)


def area(
    points: Sequence[Point],
    title: str,
    *,
    of: str,
    top: int | None = None,
    waiting_top: int | None = None,
) -> Markup:
    """Return a chart of what was done as an area, with the failures in front of it.

    `of` is the span of a point, such as `a minute`; `top` the value at the upper edge. With
    `waiting_top`, a line of what waited, of which that is the value at the upper edge.
    """
    most = top or max((point.done + point.failed for point in points), default=0) or 1
    step = WIDTH / max(1, len(points) - 1)
    whole = whole_spans(points)
    done = _line([point.done + point.failed for point in whole], step, most)
    failed = _line([point.failed for point in whole], step, most)
    parts = [
        Markup(
            '<svg class="chart" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img">'
        ).format(WIDTH, HEIGHT),
        Markup("<title>{}</title>").format(title),
        Markup('<path class="area" d="{}V{}H0Z"/>').format(done, HEIGHT),
        Markup('<path class="line" d="{}"/>').format(done),
    ]
    if any(point.failed for point in points):
        parts.append(Markup('<path class="failed" d="{}V{}H0Z"/>').format(failed, HEIGHT))
    if waiting_top:
        line = _pieces([point.waiting for point in points], step, waiting_top)
        parts.append(Markup('<path class="waiting" d="{}"/>').format(line))
    parts += [
        Markup('<rect x="{:.1f}" y="0" width="{:.1f}" height="{}"><title>{}</title></rect>').format(
            index * step - step / 2, step, HEIGHT, _said(point, of, waits=bool(waiting_top))
        )
        for index, point in enumerate(points)
    ]
    return Markup("").join([*parts, Markup("</svg>")])


def lines(points: Sequence[Point]) -> str:
    """Return the lines of `area` as JSON: the minutes, and what ended, failed and waited in each.

    Minutes count from midnight before the first one.
    """
    minutes = [HOUR * int(point.label[:2]) + int(point.label[3:]) for point in points]
    unknown = [None] * (len(points) - len(whole := whole_spans(points)))
    drawn = [
        [minute if minute >= minutes[0] else minute + DAY for minute in minutes],
        [*(point.done + point.failed for point in whole), *unknown],
        [*(point.failed for point in whole), *unknown],
        [point.waiting for point in points],
    ]
    return json.dumps(drawn, separators=(",", ":"))


def sparkline(points: Sequence[Point]) -> Markup:
    """Return a small chart without axes: an hour of a queue."""
    done, failed = sum(point.done for point in points), sum(point.failed for point in points)
    most = max((point.done + point.failed for point in points), default=0)
    if not most:
        return Markup('<span class="soft">–</span>')
    title = f"last hour: {done:,} done, {failed:,} failed, at most {most:,} a minute"
    step = WIDTH / max(1, len(points) - 1)
    whole = whole_spans(points)
    line = _line([point.done + point.failed for point in whole], step, most)
    shape = ""
    if failed:
        below = _line([point.failed for point in whole], step, most)
        shape = Markup('<path class="failed" d="{}V{}H0Z"/>').format(below, HEIGHT)
    return Markup(
        '<svg class="spark" viewBox="0 -4 {} {}" preserveAspectRatio="none" role="img">'
        '<title>{}</title><path class="line" d="{}"/>{}</svg>'
    ).format(WIDTH, HEIGHT + 8, title, line, shape)


def round_top(most: int) -> int:
    """Return the next round number: 1, 2 or 5 with zeros."""
    size = 1
    while size * _STEPS[-1] < most:
        size *= 10
    return next(step * size for step in (*_STEPS, 10) if step * size >= most)


def _line(values: Sequence[int], step: float, most: int) -> str:
    places = [
        f"{index * step:.1f} {HEIGHT - HEIGHT * value / most:.1f}"
        for index, value in enumerate(values)
    ]
    return "M" + "L".join(places or ["0 0"])


def _pieces(values: Sequence[int | None], step: float, most: int) -> str:
    """Return a line that stops where a value is not known, and begins again after it."""
    path, joins = "", False
    for index, value in enumerate(values):
        if value is not None:
            x, y = index * step, f"{HEIGHT - HEIGHT * value / most:.1f}"
            # A little long at its beginning, so that one alone is seen.
            path += f"L{x:.1f} {y}" if joins else f"M{x - 1.5:.1f} {y}h3"
        joins = value is not None
    return path


def _said(point: Point, of: str, *, waits: bool) -> str:
    said = f"{point.label} UTC: {point.done:,} done, {point.failed:,} failed {of}"
    return f"{said}, {counted_waiting(point.waiting)} waiting" if waits else said
