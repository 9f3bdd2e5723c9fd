"""The dashboard in a real browser: scripts, widths, colours, and the policy for what a page may load."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.web import Server, create_app
from tests.conftest import BROWSER
from tests.web.conftest import Serve, add_tasks
from tests.web.dashboard.browser import CHROMIUM, MISSING, Tab, chromium
from tests.web.dashboard.conftest import Run

REST = ["/", "/queues", "/queues/default", "/tasks", "/workers", "/schedules", "/log"]

Open = Callable[..., Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The browser; None where there is none."""
    if CHROMIUM is None:
        yield None
    else:
        with chromium() as browser:
            yield browser


@pytest.fixture
def open_tab(browser: Any, serve: Serve, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a tab on one server; at the end nothing may have gone wrong in it."""
    found = MISSING if browser is None else f"Chromium {browser.version}"
    request.node.user_properties.append((BROWSER, found))
    if browser is None:
        pytest.skip("there is no Chromium on this machine")
    with ExitStack() as stack:
        origin = str(serve().base_url).rstrip("/")

        def open_(**context: Any) -> Tab:
            tab = Tab(browser, origin, **context)
            stack.callback(tab.close)
            return tab

        yield open_


@pytest.fixture
def filled(jobs: JobQueue, run: Run) -> list[int]:
    """Failed jobs, one that succeeded with a tree as its result, and one that waits."""
    tasks = jobs.registry
    ids = [tasks["fail"].enqueue("<img src=x onerror=alert(1)>").id for _ in range(3)]
    ids.append(tasks["echo"].enqueue({"n": 12345678901234567, "list": list(range(3))}).id)
    run()
    return [*ids, tasks["add"].options(delay=3600).enqueue(1, 2).id]


@pytest.mark.parametrize("scripts", [True, False])
def test_chosen_jobs_are_retried(
    open_tab: Open, jobs: JobQueue, filled: list[int], scripts: bool
) -> None:
    tab = open_tab(java_script_enabled=scripts)
    page = tab.go("/jobs?state=failed")
    for id_ in filled[:2]:
        page.get_by_label(f"Select job {id_}", exact=True).check()
    if scripts:
        assert page.get_by_text("2 selected").is_visible()
    page.get_by_role("button", name="Retry…", exact=True).click()
    page.get_by_role("button", name="Retry 2 jobs").click()
    page.get_by_text("Retried 2 jobs.").wait_for()
    assert "state=failed" in page.url
    assert [str(jobs.get(id_).state) for id_ in filled[:3]] == ["available", "available", "failed"]


def test_one_box_selects_the_page(open_tab: Open, filled: list[int]) -> None:
    page = open_tab().go("/jobs")
    page.get_by_label("Select all on this page").check()
    assert page.get_by_text(f"{len(filled)} selected").is_visible()


def test_a_page_follows_its_jobs_and_keeps_what_is_open_and_selected(
    open_tab: Open, jobs: JobQueue, filled: list[int]
) -> None:
    tab = open_tab()
    page = tab.go("/jobs")
    page.get_by_label(f"Select job {filled[0]}", exact=True).check()
    new = jobs.registry["add"].enqueue(5, 6).id
    page.locator(f"#job-{new}").wait_for(timeout=10_000)
    assert page.get_by_label(f"Select job {filled[0]}", exact=True).is_checked()
    assert page.get_by_text("1 selected").is_visible()
    page = tab.go(f"/jobs/{filled[-1]}")
    page.get_by_text("As Python").click()
    jobs.cancel(filled[-1])
    page.locator("h1 .state", has_text="cancelled").wait_for(timeout=10_000)
    assert page.get_by_text("add.enqueue(1, 2)").is_visible()


@pytest.mark.parametrize(
    "path", ["/jobs", "/jobs?state=failed", "/jobs/1", "/jobs/4", "/jobs/retry?all=yes", *REST]
)
def test_every_page_is_readable_on_a_telephone(
    open_tab: Open, filled: list[int], path: str
) -> None:
    tab = open_tab(viewport={"width": 380, "height": 800})
    tab.go(path)
    assert tab.overflow() <= 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_colours_follow_the_choice_before_the_system(open_tab: Open, theme: str) -> None:
    tab = open_tab(color_scheme="dark" if theme == "light" else "light")
    page = tab.go("/jobs")

    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    before = background()
    page.get_by_role("button", name=theme, exact=True).click()
    page.wait_for_load_state()
    assert background() != before
    page = tab.go("/jobs?state=failed")
    assert background() != before


def test_a_database_that_is_away_keeps_the_last_picture(browser: Any, own_postgres: Any) -> None:
    if browser is None:
        pytest.skip("there is no Chromium on this machine")
    with JobQueue(own_postgres.url) as jobs, Server(create_app(jobs), port=0, grace=1) as server:
        add_tasks(jobs)
        jobs.registry["add"].enqueue(1, 2)
        tab = Tab(browser, server.url)
        page = tab.go("/jobs")
        own_postgres.stop("immediate")
        page.get_by_text("No answer from the server or its database").wait_for(timeout=20_000)
        assert page.locator("#job-1").is_visible()
        own_postgres.start()
        page.get_by_text("No answer from the server or its database").wait_for(
            state="hidden", timeout=20_000
        )
        tab.wrong = [said for said in tab.wrong if "503" not in said]
        tab.close()
