"""The page Now: what goes on in each queue and in the last hour, read once for all viewers."""

import asyncio
import re
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue import JobQueue, overview
from jobqueue.overview import Point, points
from jobqueue.prometheus import Collector
from jobqueue.store.audit import Audit
from jobqueue.store.history import Figures, History
from jobqueue.store.stats import Monitor
from jobqueue.web import live
from jobqueue.web.charts import area, round_top, sparkline
from jobqueue.web.live import LiveViews
from jobqueue.web.pages.now import now_page
from tests.web.dashboard.conftest import Pages, Run, ids_in, text_of


def facts(page: str) -> dict[str, str]:
    """The large numbers, by what they are."""
    found = re.findall(r"<dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", page)
    return {text_of(name).strip().split(",")[0]: text_of(value).strip() for name, value in found}


def rows(page: str) -> dict[str, list[str]]:
    """The cells of each queue, by its name."""
    lines = re.findall(r'<tr id="queue-\d+">(.*?)</tr>', page, re.DOTALL)
    cells = [
        [text_of(cell).strip() for cell in re.findall(r"<td.*?</td>", line, re.DOTALL)]
        for line in lines
    ]
    return {name.split()[0]: rest for name, *rest in cells}


def test_each_queue_has_a_line(pages: Pages, jobs: JobQueue, run: Run) -> None:
    for _ in range(2):
        pages.client.id(task="fail", queue="crm")
    pages.client.id(1, 2)
    run()
    pages.client.id(1, 2, queue="mail")
    pages.client.id(1, 2, queue="mail", delay=3600)
    page = pages.get("/")
    lines = rows(page)
    assert lines["mail"][:2] == ["1 + 1", "0"] and lines["crm"][:2] == ["0", "0"]
    assert [lines[name][4] for name in ("crm", "default", "mail")] == ["2", "0", "0"]
    assert "2 failed" in lines["crm"][5] and lines["mail"][5] == "–"
    said = facts(page)
    assert (said["waiting"], said["failed in the last hour"]) == ("1", "2")
    assert "1 done, 2 failed" in text_of(page)
    assert "1 done, 2 failed" in text_of(pages.get("/?span=24h"))
    assert "not 1h or 24h" in pages.get("/?span=7d", 400)


def test_the_large_chart_shows_what_waited_as_a_line_and_as_a_table(
    pages: Pages, jobs: JobQueue
) -> None:
    for _ in range(3):
        pages.client.id(1, 2)
    assert "scale at the right" not in text_of(pages.get("/")), "no worker has counted yet"
    History(jobs.store).add("mia", [Figures("", 0, 0, 0, 0, 0.0, None, 0.0, None)])
    for span in ("1h", "24h"):
        page = pages.get(f"/?span={span}")
        assert re.search(r'class="waiting" d="M[\d.]+ [\d.]+h3', page)
        assert "0 done, 0 failed, at most 3 waiting" in text_of(page)
        assert re.search(
            r"<td>\d\d:\d\d</td>(<td class=\"n\">0</td>){2}<td class=\"n\">3</td>", page
        )
        assert "(scale at the right)" in text_of(page)
        assert ("the most in 15 min" in text_of(page)) is (span == "24h")


def test_what_the_doctor_finds_stands_on_top_with_its_remedy_and_where_to_look(
    pages: Pages, jobs: JobQueue
) -> None:
    assert 'class="finding"' not in pages.get("/")
    pages.client.id(1, 2, queue="mail")
    assert 'class="finding"' not in pages.get("/?span=24h")  # As it was found a moment ago.
    overview._found.clear()
    page = pages.get("/?span=1h")
    assert "no worker is alive, and jobs wait in queue mail" in page
    assert "<small>jobqueue worker --app MODULE:NAME --queues mail</small>" in page
    assert 'href="./jobs?state=available&amp;queue=mail"' in page


@pytest.mark.parametrize("open_names", [[], ["queue.example"]])
def test_a_scrape_and_the_page_do_not_drop_each_others_findings(
    jobs: JobQueue, monkeypatch: Any, open_names: list[str]
) -> None:
    asked: list[Any] = []
    examine = overview.examine
    monkeypatch.setattr(overview, "examine", lambda *given: asked.append(given) or examine(*given))
    for _ in range(2):
        now_page(jobs, {}, open_names)
        list(Collector(jobs).collect())
    assert len(asked) == len({(), tuple(open_names)})


def test_errors_of_one_cause_come_first(pages: Pages, run: Run) -> None:
    assert "one reason" not in pages.get("/")
    for _ in range(10):
        pages.client.id(task="fail")
    run()
    page = pages.get("/")
    assert "10 attempts errored lately for one reason: ValueError in fail" in text_of(page)
    assert page.index("What needs you") < page.index("The last hour")
    (link,) = re.findall(r'href="\.(/jobs\?error=[^"]+)"', page)
    assert len(ids_in(pages.get(link))) == 10


def test_a_queue_is_paused_and_resumed_with_a_button(pages: Pages, jobs: JobQueue) -> None:
    pages.client.id(1, 2, queue="mail")
    page = pages.done("/queues/mail/pause", {"to": "/"})
    assert "Queue mail is paused." in page and "paused by http 127.0.0.1" in text_of(page)
    assert 'formaction="./queues/mail/resume"' in page
    assert "was already paused" in pages.done("/queues/mail/pause", {"to": "/?span=24h"})
    page = pages.done("/queues/mail/resume", {"to": "/"})
    assert 'formaction="./queues/mail/pause"' in page
    assert [action["verb"] for action in Audit(jobs.store).find(None)] == ["resume", "pause"]
    assert pages.send("/queues/no%20name/pause").status_code == 400


def test_the_chart_of_a_day_is_read_once_in_15_seconds(
    jobs: JobQueue, pages: Pages, monkeypatch: Any
) -> None:
    """A day has up to 1,440 minutes of each pair of queue and task: the dearest of the page."""
    asked = []
    ended = Monitor.ended
    monkeypatch.setattr(
        Monitor,
        "ended",
        lambda self, count, **more: asked.append(count) or ended(self, count, **more),
    )
    now_page(jobs, {"span": "24h"}), now_page(jobs, {"span": "24h"})
    assert asked.count(1440) == 1
    overview.forget_findings(jobs.store)  # An operator has changed something here.
    now_page(jobs, {"span": "24h"})
    monkeypatch.setattr(overview, "FRESH", -1.0)
    now_page(jobs, {"span": "24h"}), now_page(jobs, {})
    assert (asked.count(1440), asked.count(60)) == (3, 6)


def test_points_are_whole_spans_up_to_the_present() -> None:
    present = datetime(2026, 1, 1, 12, 34, 56, tzinfo=UTC)

    def row(minutes: int, done: int, failed: int = 0) -> dict[str, Any]:
        at = present.replace(second=0) - timedelta(minutes=minutes)
        return {"minute": at, "succeeded": done, "cancelled": 1, "failed": failed}

    by_minute = points([row(0, 5), row(59, 7, 2), row(60, 9)], present)
    assert len(by_minute) == 60
    assert by_minute[0] == Point("11:35", 8, 2) and by_minute[-1] == Point("12:34", 6, 0)
    by_quarter = points([row(0, 5), row(4, 5), row(5, 5)], present, 1440, 15)
    assert len(by_quarter) == 96
    assert by_quarter[-2:] == [Point("12:15", 6, 0), Point("12:30", 12, 0)]
    hour = present.replace(minute=0, second=0)
    waited = {hour: 7, hour + timedelta(minutes=14): 3, hour + timedelta(minutes=30): 0}
    by_quarter = points([], present, 60, 15, waited)
    assert [point.waiting for point in by_quarter] == [None, 7, None, 0]


def test_charts_are_drawn_of_nothing_of_one_point_and_of_many() -> None:
    assert [round_top(most) for most in (0, 1, 3, 10, 11, 2_500, 60_000)] == [
        1,
        1,
        5,
        10,
        20,
        5_000,
        100_000,
    ]
    for many in ([], [Point("00:00", 0, 0)], [Point("00:00", 3, 1)] * 60):
        svg = str(area(many, '"<title>"', of="a minute"))
        assert svg.startswith("<svg") and svg.endswith("</svg>") and "&lt;title&gt;" in svg
    assert "3 done, 1 failed a minute" in svg and "failed" in str(sparkline(many))
    assert str(sparkline([Point("00:00", 0, 0)])) == '<span class="soft">–</span>'


# Read once for all


def test_ten_viewers_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0

    async def read() -> tuple[str, dict[str, Any]]:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0)
        return "now.html", {"n": reads // 2}

    async def look() -> None:
        views = LiveViews()
        first = await asyncio.gather(*(views.get("/", read, follows=True) for _ in range(10)))
        assert reads == 1 and len({seen.serial for seen in first}) == 1
        await views.get("/jobs", read, follows=True)
        assert reads == 2
        monkeypatch.setattr(live, "KEEP_MIN", 0.0)
        views.clear()
        serials = [(await views.get("/", read, follows=True)).serial for _ in range(3)]
        assert reads == 5 and len(set(serials)) == 2  # Of n = 1, 2 and 2.

    asyncio.run(look())


def test_a_slow_view_is_read_for_a_small_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(live, "COST_MAX", 0.02)
    reads = 0

    async def read() -> tuple[str, dict[str, Any]]:
        nonlocal reads
        reads += 1
        clock[0] += 0.1
        return "now.html", {}

    async def look() -> None:
        views = LiveViews()
        for _ in range(200):
            await views.get("/", read, follows=True)
            clock[0] += 0.5
        spent = 0.1 * reads
        assert spent / (clock[0] - 100) <= 0.025

    asyncio.run(look())


def test_what_goes_wrong_is_not_kept_and_views_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails() -> tuple[str, dict[str, Any]]:
        raise OSError

    async def read() -> tuple[str, dict[str, Any]]:
        return "now.html", {}

    async def look() -> None:
        views = LiveViews()
        for _ in range(2):
            with pytest.raises(OSError):
                await views.get("/", fails, follows=True)
        assert (await views.get("/", read, follows=True)).template == "now.html"
        for number in range(200):
            await views.get(f"/jobs?q={number}", read, follows=True)
        assert len(views._views) <= live.VIEWS_MAX

    asyncio.run(look())


def test_who_changes_something_sees_it_at_once(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "COST_MAX", 1e-9)
    id_ = pages.client.id(1, 2, delay=3600)
    assert "scheduled" in text_of(pages.get(f"/jobs/{id_}"))
    assert "Run now" not in pages.done(f"/jobs/{id_}/retry")


def test_what_a_page_reads_is_read_in_a_thread(
    jobs: JobQueue, pages: Pages, monkeypatch: Any
) -> None:
    """A slow database must not hold up the API."""
    threads = set()
    monkeypatch.setattr(
        "jobqueue.web.pages.now.paused_by", lambda *_: threads.add(threading.current_thread()) or {}
    )
    jobs.pause("mail", force=True)
    pages.get("/")
    assert threads and threading.main_thread() not in threads
    assert now_page(jobs, {})[0] == "now.html"
