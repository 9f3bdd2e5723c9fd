"""The dashboard in a real browser: scripts, widths, colours, and the policy for what a page may load."""

from pathlib import Path
from typing import Any

import pytest

from jobqueue import JobQueue, every
from jobqueue.queue_switches import Rate
from jobqueue.store.queue_control import QueueControl
from jobqueue.web import Server, create_app
from tests.web.conftest import Serve, add_tasks
from tests.web.dashboard.browser import Tab
from tests.web.dashboard.conftest import Open, Run

pytestmark = pytest.mark.slow

AXE = Path(__file__).parent / "vendor/axe.min.js"
REST = ["/", "/errors", "/queues", "/queues/default", "/tasks", "/workers", "/schedules", "/log"]
PATHS = [
    "/jobs",
    "/jobs?state=failed",
    "/jobs/1",
    "/jobs/4",
    "/jobs/retry?all=yes",
    "/queues/default/purge",
    *REST,
]


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


@pytest.mark.databases("sqlite")
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
    page.locator(f"#job-{new}").wait_for(timeout=60_000)
    assert page.get_by_label(f"Select job {filled[0]}", exact=True).is_checked()
    assert page.get_by_text("1 selected").is_visible()
    page = tab.go(f"/jobs/{filled[-1]}")
    page.get_by_text("As Python").click()
    jobs.cancel(filled[-1])
    page.locator("h1 .state", has_text="cancelled").wait_for(timeout=60_000)
    assert page.get_by_text("add.enqueue(1, 2)").is_visible()


@pytest.mark.databases("sqlite")
def test_the_way_back_leads_to_the_whole_page_not_to_its_last_change(open_tab: Open) -> None:
    page = open_tab().go("/")
    with page.expect_response(lambda answer: "hx-request" in answer.request.headers):
        pass
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.wait_for_url("**/jobs")
    page.go_back()
    page.wait_for_url("**/")
    page.locator("#live").wait_for()
    assert page.get_by_role("link", name="Jobs", exact=True).count() == 1


@pytest.mark.databases("sqlite")
def test_every_page_is_readable_on_a_telephone(open_tab: Open, filled: list[int]) -> None:
    tab = open_tab(viewport={"width": 380, "height": 800})
    wider, cut = {}, {}
    for path in PATHS:
        tab.go(path)
        wider[path], cut[path] = tab.overflow(), tab.cut_buttons()
    assert {path: by for path, by in wider.items() if by > 0} == {}
    assert {path: buttons for path, buttons in cut.items() if buttons} == {}


@pytest.mark.databases("sqlite")
def test_a_rate_with_its_burst_is_not_cut(
    open_tab: Open, jobs: JobQueue, filled: list[int]
) -> None:
    QueueControl(jobs.store).rate("default", Rate.of("100/minute", 10))
    tab = open_tab(viewport={"width": 1280, "height": 800})
    cell = tab.go("/queues").locator("td", has_text="100/minute, burst 10")
    assert cell.evaluate("each => each.scrollWidth - each.clientWidth") == 0
    assert tab.overflow() == 0


@pytest.mark.databases("sqlite")
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
        page.get_by_text("No answer from the server or its database").wait_for(timeout=60_000)
        assert page.locator("#job-1").is_visible()
        own_postgres.start()
        page.get_by_text("No answer from the server or its database").wait_for(
            state="hidden", timeout=60_000
        )
        tab.wrong = [said for said in tab.wrong if "503" not in said]
        tab.close()


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(
    open_tab: Open, filled: list[int], jobs: JobQueue, colours: str
) -> None:
    jobs.schedules.add("often", jobs.registry["add"].call(1, 2), every(minutes=5))
    jobs.pause("mail", force=True)
    tab = open_tab(color_scheme=colours)
    tab.context.add_init_script(path=AXE)
    # The other colours need the rule for colours only.
    wanted = "runOnly: ['color-contrast']" if colours == "dark" else "resultTypes: ['violations']"
    found = {}
    for path in [*PATHS, "/nothing"]:
        page = tab.go(path)
        wrong = page.evaluate(f"axe.run({{{wanted}}}).then(({{violations}}) => violations)")
        found[path] = [
            (
                rule["id"],
                rule["impact"],
                rule["nodes"][0]["html"][:200],
                rule["nodes"][0]["failureSummary"],
            )
            for rule in wrong
            if rule["impact"] in ("serious", "critical")
        ]
    tab.wrong = [said for said in tab.wrong if "404" not in said]
    assert {path: rules for path, rules in found.items() if rules} == {}


@pytest.mark.databases("sqlite")
def test_keys_lead_through_the_lists_and_pages(open_tab: Open, filled: list[int]) -> None:
    tab = open_tab()
    page = tab.go("/")
    for key, path in {
        "j": "/jobs",
        "e": "/errors",
        "q": "/queues",
        "t": "/tasks",
        "w": "/workers",
        "s": "/schedules",
        "l": "/log",
        "n": "/",
    }.items():
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"**{path}")
    page.keyboard.press("/")
    page.wait_for_url("**/jobs")
    page.keyboard.press("/")
    page.keyboard.type("gjx?")
    assert page.locator("#q").input_value() == "gjx?"
    page.keyboard.press("Escape")
    for key in "jjxkx":
        page.keyboard.press(key)
    assert page.get_by_text("2 selected").is_visible()
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    # On a busy machine the browser still gives the next key to the closed dialog's button.
    page.locator("#keys button").dispatch_event("keydown", {"key": "Enter", "bubbles": True})
    page.wait_for_url(f"**/jobs/{filled[-1]}")
    page.go_back()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/jobs/{filled[-1]}")


@pytest.mark.databases("sqlite")
def test_a_queue_is_paused_and_a_job_retried_in_a_browser(
    open_tab: Open, jobs: JobQueue, filled: list[int]
) -> None:
    page = open_tab().go("/")
    page.get_by_role("button", name="Pause").first.click()
    page.get_by_text("Queue default is paused.").wait_for()
    page.get_by_role("link", name="default").click()
    page.goto("/queues/default")
    page.get_by_label("Run at most, in the whole fleet").fill("3")
    page.get_by_role("button", name="Set").first.click()
    page.get_by_text("Queue default runs at most 3 jobs at once.").wait_for()
    page.goto(f"/jobs/{filled[0]}")
    page.get_by_role("button", name="Retry").click()
    page.get_by_text("Retried 1 job.").wait_for()
    assert jobs.get(filled[0]).state == "available"


@pytest.mark.databases("sqlite")
def test_a_login_lasts_over_a_link_from_elsewhere(
    browser: Any, serve: Serve, open_tab: Open
) -> None:
    origin = str(serve(token="a-long-random-token").base_url).rstrip("/")
    tab = Tab(browser, origin)
    page = tab.go("/queues")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("That is not the token.").wait_for()
    page.get_by_label("Token").fill("a-long-random-token")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/queues")
    tab.wrong = [said for said in tab.wrong if "401" not in said]
    elsewhere = origin.replace("127.0.0.1", "localhost")  # Another site: the names differ.
    page.context.clear_cookies()
    page.get_by_label("Token").wait_for(timeout=60_000)  # The next look finds the login over.
    page.get_by_label("Token").fill("a-long-random-token")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/queues")
    page.goto(f"{elsewhere}/login")
    page.evaluate("origin => { location.href = `${origin}/tasks` }", origin)
    page.get_by_role("heading", name="Tasks").wait_for(state="attached")
    assert "/tasks" in page.url
    tab.context.close()
