"""Shared by the tests of the dashboard: forms as a browser sends them, and a browser where there is one."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from jobqueue import JobQueue
from jobqueue.web import live
from tests.conftest import BROWSER
from tests.web.conftest import Serve
from tests.web.dashboard.browser import CHROMIUM, MISSING, Tab, chromium

HTML = {"Accept": "text/html,application/xhtml+xml"}


class Pages:
    """A client that asks as a browser does, without running scripts."""

    def __init__(self, client: Any, mount: str = "") -> None:
        self.client = client
        self.client.headers.update(HTML)
        self.origin = f"{client.base_url.scheme}://{client.base_url.netloc.decode()}"
        self.mount = mount

    def get(self, path: str, status: int = 200, **how: Any) -> str:
        response = self.client.get(self.mount + path, follow_redirects=True, **how)
        assert response.status_code == status, response.text
        return response.text

    def token(self, path: str = "/jobs") -> str:
        """The token of the forms of a page."""
        found = re.search(r'name="token" value="([^"]+)"', self.get(path))
        assert found is not None
        return found[1]

    def send(self, path: str, fields: dict[str, Any] | None = None, **how: Any) -> httpx.Response:
        """Send a form with the token of a page."""
        fields = {"token": self.token()} | (fields or {})
        headers = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin"} | how.pop("headers", {})
        return self.client.post(self.mount + path, data=fields, headers=headers, **how)

    def done(self, path: str, fields: dict[str, Any] | None = None) -> str:
        """Send a form, and return the page that it leads to."""
        response = self.send(path, fields, follow_redirects=True)
        assert response.status_code == 200, response.text
        assert [each.status_code for each in response.history] == [303]
        return response.text


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that are loaded show what is there, on a slow machine too."""
    monkeypatch.setattr(live, "COST_MAX", 1e9)


@pytest.fixture
def pages(serve: Serve) -> Pages:
    """A client of a server with the defaults."""
    return Pages(serve())


Run = Callable[[], None]


@pytest.fixture
def run(jobs: JobQueue) -> Run:
    """Runs all jobs that wait, to their ends."""

    def run() -> None:
        with jobs.worker(poll=0.02, drain=True) as worker:
            worker.wait()

    return run


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


def ids_in(page: str) -> list[int]:
    """The ids of the jobs in a list, in its order."""
    return [int(id_) for id_ in re.findall(r'<tr id="job-(\d+)"', page)]


def text_of(page: str) -> str:
    """The text of a page, on one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def link_of(page: str, text: str) -> str:
    """Where the link with a text leads."""
    found = re.search(rf'href="([^"]+)"[^>]*>\s*{re.escape(text)}', page)
    assert found is not None, text
    return found[1].replace("&amp;", "&")
