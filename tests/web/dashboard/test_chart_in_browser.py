"""The large chart as uPlot draws it: its data, its cursor, its colours, and what it leaves to the SVG."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import insert

from jobqueue import JobQueue
from jobqueue.store.history import Figures, History
from jobqueue.store.schema import CounterKind, counters
from tests.web.dashboard.conftest import Open

pytestmark = pytest.mark.slow

ENDED = {50: (4, 0), 40: (6, 2), 39: (1, 0)}
"""Of each minute, that long ago: jobs that succeeded, and that failed."""
DRAWN = "() => typeof chart === 'object' && chart.status === 1"
SAID = "document.getElementById('said').textContent"
HAS_COLOUR = """([red, green, blue]) => {
    const { canvas } = chart.ctx
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true })
    copy.drawImage(canvas, 0, 0)
    const { data } = copy.getImageData(0, 0, canvas.width, canvas.height)
    const pixels = new Uint32Array(data.buffer)
    return pixels.includes((0xff000000 | blue << 16 | green << 8 | red) >>> 0)
}"""
"""Whether a pixel is exactly of this colour. A copy is read: Chromium warns of reading one canvas often."""
MARKS = """() => {
    const { canvas } = chart.ctx
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true })
    copy.drawImage(canvas, 0, 0)
    const { data } = copy.getImageData(0, 152, canvas.width, 1)
    const opacity = data.filter((_, at) => at % 4 === 3)
    return opacity.filter((value, at) => value && !opacity[at - 1]).length
}"""
"""How many marks of times there are, in a line of pixels below the chart."""
LOOK_OF = """name => {
    const { backgroundColor, borderTopColor, borderTopStyle } = markOf(name)
    return [backgroundColor === borderTopColor, borderTopStyle]
}"""
"""Whether the mark of a line in the legend is filled, and its border."""
IS_FILLED = """() => {
    const place = [chart.valToPos(chart.data[0][chart.data[2].indexOf(2)], 'x', true), chart.valToPos(0.5, 'y', true)]
    const copy = new OffscreenCanvas(1, 1).getContext('2d')
    copy.drawImage(chart.ctx.canvas, ...place.map(at => -Math.round(at)))
    return [...copy.getImageData(0, 0, 1, 1).data].join() === '0,0,0,255'
}"""
"""Whether it is black below the two failures."""
BLUE, LIGHT_BLUE = [0x24, 0x57, 0xD6], [0x86, 0xAB, 0xFF]
"""The lines of the two themes, as the style sheet has them."""


@pytest.fixture(autouse=True)
def hour(jobs: JobQueue) -> None:
    """Counts of the last hour, as workers would have written them."""
    this = datetime.now(UTC).replace(second=0, microsecond=0)
    rows = [
        {"minute": this - timedelta(minutes=ago), "queue": "mail", "task": "add"}
        | {"succeeded": succeeded, "failed": failed, "runs": succeeded + failed}
        | {"kind": CounterKind.PERIOD.value}
        for ago, (succeeded, failed) in ENDED.items()
    ]
    jobs.registry["add"].options(queue="mail", delay=3600).enqueue(1, 2)
    with jobs.store.write() as connection:
        connection.execute(insert(counters), rows)


def count_waiting(jobs: JobQueue) -> None:
    """Write what waits, as the first worker of a minute does."""
    jobs.registry["add"].enqueue(1, 2)
    History(jobs.store).add("mia", [Figures("", 0, 0, 0, 0, 0.0, None, 0.0, None)])


@pytest.mark.parametrize("path", ["/", "/?span=24h", "/queues/mail"])
def test_it_has_the_figures_of_the_page(open_tab: Open, jobs: JobQueue, path: str) -> None:
    count_waiting(jobs)
    page = open_tab(timezone_id="Asia/Kolkata").go(path)
    page.wait_for_function(DRAWN)
    minutes, ended, failed, waiting = page.evaluate("chart.data")
    assert (sum(filter(None, ended)), sum(filter(None, failed))) == (13, 2)
    steps = {after - before for before, after in pairwise(minutes)}
    assert steps == {15 if "24h" in path else 1}
    assert max(filter(None, waiting), default=None) == (None if "mail" in path else 1)
    assert page.evaluate("chart.scales.y.max") in (10, 20)
    assert page.evaluate(HAS_COLOUR, BLUE)
    assert page.get_by_role("img", name="Jobs done and failed").count() == 1
    assert page.locator(".uplot").is_visible() and not page.locator("svg.chart").is_visible()


def test_the_cursor_says_what_is_there_and_stays_while_the_page_follows(
    open_tab: Open, jobs: JobQueue, wait_until: Callable[..., Any]
) -> None:
    page = open_tab().go("/")
    page.wait_for_function(DRAWN)
    first = page.evaluate_handle("chart")
    assert page.evaluate(SAID) == ""
    place = "chart.valToPos(chart.data[0][chart.data[2].indexOf(2)], 'x') + 4"  # Beside it.

    def said_at_the_failures() -> str:
        page.locator(".u-over").hover(position={"x": page.evaluate(place), "y": 60})
        return str(page.evaluate(SAID))

    # A minute may begin between the two.
    wait_until(lambda: said_at_the_failures().endswith(" UTC: 6 done, 2 failed a minute"))
    assert page.evaluate(
        "chart.cursor.left === chart.valToPos(chart.data[0][chart.cursor.idx], 'x')"
    )
    assert page.evaluate("Math.max(...chart.data[3])") == 0
    count_waiting(jobs)
    page.wait_for_function("() => Math.max(...chart.data[3]) === 1", timeout=60_000)
    assert page.evaluate("chart.scales.waiting.max") == 1
    assert page.evaluate(SAID).endswith(" failed a minute, – waiting")
    assert page.evaluate("first => first === chart", first)
    assert page.locator(".uplot").count() == page.locator(".plot canvas").count() == 1
    page.mouse.move(0, 0)
    page.wait_for_function(f"() => {SAID} === ''")


@pytest.mark.databases("sqlite")
def test_a_chart_that_is_no_longer_in_its_place_ends_for_another(
    open_tab: Open, jobs: JobQueue
) -> None:
    page = open_tab().go("/")
    page.wait_for_function(DRAWN)
    first = page.evaluate_handle("chart")
    page.evaluate("first => document.body.append(first.root)", first)
    count_waiting(jobs)
    page.wait_for_function("first => first !== chart", arg=first, timeout=60_000)
    assert page.locator(".uplot").count() == 1


@pytest.mark.databases("sqlite")
def test_without_scripts_and_on_paper_there_is_the_svg(open_tab: Open) -> None:
    plain = open_tab(java_script_enabled=False).go("/")
    assert plain.locator("svg.chart").is_visible() and plain.locator(".labels").is_visible()
    assert plain.locator("canvas").count() == 0
    assert not plain.locator("#said").is_visible()
    page = open_tab().go("/")
    page.wait_for_function(DRAWN)
    page.emulate_media(media="print")
    assert page.locator("svg.chart").is_visible() and page.locator(".labels").is_visible()
    assert not page.locator(".uplot").is_visible()


@pytest.mark.databases("sqlite")
def test_it_follows_the_colours_and_the_width(open_tab: Open) -> None:
    tab = open_tab(color_scheme="light")
    page = tab.go("/")
    page.wait_for_function(DRAWN)
    page.evaluate("() => Object.defineProperty(document, 'hidden', { value: true })")  # No refresh.
    assert page.evaluate(HAS_COLOUR, BLUE) and not page.evaluate(HAS_COLOUR, LIGHT_BLUE)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(HAS_COLOUR, arg=LIGHT_BLUE)
    assert not page.evaluate(HAS_COLOUR, BLUE)
    for width in (380, 1440, 380):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function("() => chart.width === document.getElementById('plot').clientWidth")
        assert 0.8 * width < page.evaluate("chart.width") < width and tab.overflow() == 0
    page.get_by_role("button", name="light", exact=True).click()
    page.wait_for_load_state()
    page.wait_for_function(HAS_COLOUR, arg=BLUE)


@pytest.mark.databases("sqlite")
def test_where_colours_are_forced_shapes_tell_its_lines_apart(open_tab: Open) -> None:
    """As the contrast themes of Windows do: all backgrounds are alike, and all borders."""
    page = open_tab(forced_colors="active", color_scheme="light").go("/")
    page.wait_for_function(DRAWN)
    page.evaluate("() => Object.defineProperty(document, 'hidden', { value: true })")  # No refresh.
    looks = [page.evaluate(LOOK_OF, name) for name in ("done", "failed")]
    assert looks == [[False, "solid"], [True, "solid"]]
    page.wait_for_function(IS_FILLED)
    assert not page.evaluate(HAS_COLOUR, BLUE)
    page.emulate_media(forced_colors="none")
    page.wait_for_function(HAS_COLOUR, arg=BLUE)


@pytest.mark.databases("sqlite")
def test_each_mark_below_the_lines_has_its_time(open_tab: Open) -> None:
    page = open_tab(viewport={"width": 380, "height": 800}).go("/")
    page.wait_for_function(DRAWN)
    page.evaluate("() => Object.defineProperty(document, 'hidden', { value: true })")  # No refresh.
    nothing = "Array(60).fill(0)"
    page.evaluate(f"chart.setData([[...Array(60).keys()], {nothing}, {nothing}, {nothing}])")
    # The first would be at the edge.
    page.wait_for_function("() => chart.axes[0]._splits[0] === 0")
    page.wait_for_function(f"() => ({MARKS})() === 3")
    times = page.evaluate("chart.axes[0]._values")
    assert times == [None, "00:15 UTC", "00:30", "00:45"]
