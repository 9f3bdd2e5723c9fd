"""What keeps others out of the dashboard: forms, logins, rights, and what data may do in a page."""

import json
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, update
from starlette.applications import Starlette

from jobqueue import JobQueue
from jobqueue.store.schema import audit
from jobqueue.store.schema import jobs as table
from jobqueue.web import Server, create_app
from jobqueue.web.session import Sessions
from tests.web.conftest import Client, Serve
from tests.web.dashboard.conftest import Pages, Run, link_of

# Requests, forms and cookies are the same on both databases. What docs/promises.md names runs on both.
pytestmark = pytest.mark.databases("sqlite")
ON_BOTH = pytest.mark.databases("sqlite", "postgres")

TOKEN = "a-long-random-token-of-the-tests"


# Forms


FORMS: list[tuple[int, dict[str, Any]]] = [
    (403, {"Origin": None}),
    (403, {"Origin": "null"}),
    (403, {"Origin": "https://evil.example"}),
    (403, {"Origin": "http://127.0.0.1:1"}),
    (403, {"Sec-Fetch-Site": "cross-site"}),
    (403, {"Sec-Fetch-Site": "same-site"}),
    (403, {"Sec-Fetch-Site": "none"}),
    (403, {"Cookie": ""}),
    (403, {"Host": "evil.example", "Origin": "http://evil.example"}),
    (415, {"Content-Type": "text/plain"}),
    (415, {"Content-Type": "multipart/form-data; boundary=x"}),
    (415, {"Content-Type": "application/json"}),
    (303, {"Sec-Fetch-Site": None}),
    (303, {}),
]


@ON_BOTH
def test_only_our_own_forms_are_taken(pages: Pages, jobs: JobQueue) -> None:
    given = {
        "Origin": pages.origin,
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    got = []
    for _, headers in FORMS:
        id_, body = pages.client.id(1, 1), f"token={pages.token()}"
        sent = {name: value for name, value in (given | headers).items() if value is not None}
        response = pages.client.post(f"/jobs/{id_}/cancel", content=body, headers=sent)
        got.append((response.status_code, headers))
        assert (jobs.get(id_).state == "cancelled") == (response.status_code == 303), got[-1]
    assert got == FORMS


@ON_BOTH
@pytest.mark.parametrize("token", ["", "x", "another's"])
def test_a_form_needs_the_token_of_its_session(pages: Pages, serve: Serve, token: str) -> None:
    id_ = pages.client.id(1, 1)
    if token == "another's":
        token = Sessions(None).form_token(Sessions(None).new())
    response = pages.send(f"/jobs/{id_}/cancel", {"token": token})
    assert response.status_code == 403 and "out of date" in response.text


def test_a_form_changes_nothing_by_get_and_the_api_takes_none(pages: Pages, jobs: JobQueue) -> None:
    id_ = pages.client.id(1, 1)
    assert pages.client.get(f"/jobs/{id_}/cancel").status_code == 405
    pages.get(f"/jobs/cancel?id={id_}")
    response = pages.send(f"/api/jobs/{id_}/cancel")
    assert response.status_code == 415 and jobs.get(id_).state == "available"


def test_a_form_that_is_too_large_is_refused(pages: Pages) -> None:
    assert pages.send("/jobs/cancel", {"id": "1," * 50_000}).status_code == 413


# Links from elsewhere


NAVIGATES = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    ("status", "path", "headers"),
    [
        (200, "/jobs?state=failed", NAVIGATES),
        (403, "/jobs", {**NAVIGATES, "Sec-Fetch-Dest": "iframe"}),
        (403, "/jobs", {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}),
        (403, "/jobs", {"Sec-Fetch-Mode": "cors", "Origin": "https://evil.example"}),
        (403, "/api/jobs", NAVIGATES),
    ],
)
def test_a_link_on_another_site_opens_a_page_and_nothing_else_of_it_does(
    pages: Pages, status: int, path: str, headers: dict[str, str]
) -> None:
    response = pages.client.get(path, headers={"Sec-Fetch-Site": "cross-site", **headers})
    assert response.status_code == status


# Logins


def test_a_login_takes_the_token_once(serve: Serve, jobs: JobQueue) -> None:
    jobs.registry["add"].enqueue(1, 1)
    pages = Pages(serve(token=TOKEN))
    asked = pages.client.get("/jobs?state=available")
    assert (asked.status_code, asked.headers["location"]) == (
        303,
        "./login?to=%2Fjobs%3Fstate%3Davailable",
    )
    own = {"Origin": pages.origin}
    wrong = pages.client.post("/login", data={"password": "x"}, headers=own)
    assert wrong.status_code == 401 and "not the token" in wrong.text
    right = pages.client.post(
        "/login?to=%2Fjobs%3Fstate%3Davailable", data={"password": TOKEN}, headers=own
    )
    assert (right.status_code, right.headers["location"]) == (303, "./jobs?state=available")
    cookie = right.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age"))
    assert TOKEN not in cookie
    assert "Log out" in pages.get("/jobs") and pages.client.get("/api/jobs").status_code == 401
    assert pages.send("/logout").headers["location"] == "./login"
    assert pages.client.get("/jobs").status_code == 303


def test_a_login_holds_in_each_process_and_ends_with_the_token_or_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cookie = Sessions(b"digest").new()
    assert Sessions(b"digest").is_valid(cookie) and not Sessions(b"other").is_valid(cookie)
    body, _, signature = cookie.rpartition(".")
    later = str(int(body.partition(".")[0]) + 9) + body[body.index(".") :]
    for wrong in (None, "", ".", "..", f"{later}.{signature}", f"{body}.é", body):
        assert not Sessions(b"digest").is_valid(wrong)
    monkeypatch.setattr("jobqueue.web.session.time.time", lambda: 1e11)
    assert not Sessions(b"digest").is_valid(cookie)


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", "\\"])
def test_a_login_leads_to_no_other_site(serve: Serve, to: str) -> None:
    pages = Pages(serve(token=TOKEN))
    own = {"Origin": pages.origin}
    answer = pages.client.post(f"/login?to={to}", data={"password": TOKEN}, headers=own)
    assert answer.status_code == 303 and answer.headers["location"].startswith("./")
    assert answer.next_request is not None
    assert answer.next_request.url.host == pages.client.base_url.host


def test_a_link_to_a_page_of_a_login_arrives(serve: Serve) -> None:
    """The browser keeps a SameSite=Strict cookie back until our own page asks."""
    pages = Pages(serve(token=TOKEN))
    headers = {"Sec-Fetch-Site": "cross-site", **NAVIGATES}
    page = pages.client.get("/jobs", headers=headers)
    assert page.status_code == 200 and 'http-equiv="refresh"' in page.text


def test_without_a_login_only_its_page_and_its_files_are_there(serve: Serve) -> None:
    pages = Pages(serve(token=TOKEN))
    page = pages.get("/login")
    assert "sqlite" not in page and "postgres" not in page
    style = page.split('rel="stylesheet" href="./')[1].split('"')[0]
    assert pages.client.get("/" + style).status_code == 200
    assert pages.client.get("/jobs", headers={"Accept": "*/*"}).status_code == 401


# Rights


@pytest.mark.parametrize("is_async", [False, True])
def test_authorize_decides_for_each_verb(serve: Serve, jobs: JobQueue, is_async: bool) -> None:
    answers: dict[str, Any] = {"ada": "all", "bob": "read", "eve": None, "joe": {"cancel"}}

    def decide(request: Any) -> Any:
        return answers[request.headers["x-user"]]

    async def decide_later(request: Any) -> Any:
        return decide(request)

    client = serve(hosts=None, authorize=decide_later if is_async else decide)
    id_ = jobs.registry["add"].enqueue(1, 1).id

    def statuses(method: str, path: str) -> dict[str, int]:
        return {
            user: client.request(method, path, headers={"x-user": user}).status_code
            for user in answers
        }

    everybody = {"ada": 200, "bob": 200, "eve": 403, "joe": 200}
    assert statuses("GET", "/jobs") == statuses("GET", "/api/jobs") == everybody
    assert statuses("POST", f"/api/jobs/{id_}/update") == everybody | {
        "ada": 415,
        "bob": 403,
        "joe": 403,
    }
    assert statuses("POST", f"/api/jobs/{id_}/cancel") == everybody | {"bob": 403}
    joe = {"x-user": "joe", "Accept": "text/html"}
    page = client.get("/jobs", headers=joe).text
    assert "Cancel…" in page and "Retry…" not in page and "Delete…" not in page


def test_to_undo_takes_the_right_to_the_verb_that_does_it(serve: Serve, jobs: JobQueue) -> None:
    client = serve(hosts=None, authorize=lambda request: request.headers["x-may"].split(","))
    jobs.registry["add"].options(queue="mail").enqueue(1, 1)
    post = lambda path, may, **how: client.post(path, headers={"x-may": may}, **how)
    for most in (4, 10):
        post("/api/queues/mail/limit", "limit", json={"limit": most})
    for may, missing in (("limit", "undo"), ("undo,rate", "limit")):
        page = client.get("/log", headers={"x-may": may, "Accept": "text/html"}).text
        assert "limit 4 → 10" in page and "Undo</button>" not in page
        error = post("/api/log/2/undo", may).json()["error"]
        assert (error["field"], error["value"]) == ("authorize", missing)
        pages = Pages(client)
        pages.client.headers["x-may"] = may
        assert pages.send("/log/2/undo").status_code == 403
    said = "limit queue mail, limit 10 → 4"
    assert post("/api/log/2/undo", "undo,limit").json() == {"changed": 1, "undone": said}


# What data may do in a page


EVIL = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "</title></style></textarea></pre><svg onload=alert(1)>",
    "\u202etxt.exe\u200b\x07",
    "]]>--><!--",
    "hx-get=//evil.example",
]


class Elements(HTMLParser):
    """Collects what a browser would run or load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()
        self.scripts = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        if tag == "script":
            self.scripts += 1
            assert "src" in names, "an inline script"
        assert tag not in ("style", "img", "iframe", "object", "base")
        assert not {name for name in names if name.startswith("on")} | names & {"style"}
        for name, value in attrs:
            if name in ("href", "src", "action", "formaction", "hx-get"):
                assert value is not None and value.startswith(("./", "../", "#")), (tag, value)


@ON_BOTH
def test_what_jobs_hold_is_inert_everywhere(pages: Pages, jobs: JobQueue, run: Run) -> None:
    ids = []
    for text in EVIL:
        ids.append(pages.client.id(text, task="fail"))
        ids.append(
            pages.client.id({text: [text]}, task="echo", headers={"x": text[:40].strip("\x07")})
        )
    run()
    with jobs.store.write() as connection:
        for number, id_ in enumerate(ids):
            # Plain SQL may write names that our own interfaces refuse.
            text = EVIL[number % len(EVIL)]
            names = dict.fromkeys(("task", "queue", "worker", "reason", "progress_message"), text)
            lists = {"tags": json.dumps([text]), "unique_key": text + str(id_)}
            change = update(table).where(table.c.id == id_)
            connection.execute(change.values(names | lists | {"unique_until": "finished"}))
        for text in EVIL:
            target = {"ids": ids[:1], "set": {"queue": f"{text}2"}}
            row = {"actor": text, "verb": "update", "target": json.dumps(target)}
            connection.execute(insert(audit).values(**row, before=json.dumps({"queue": text})))
    rest = ("/", "/errors", "/queues", "/tasks", "/workers", "/schedules", "/log")
    for path in ("/jobs", *(f"/jobs/{id_}" for id_ in ids), "/jobs/retry?all=yes", *rest):
        page = pages.get(path)
        assert Elements(page).scripts == (4 if path == "/" else 2)
        assert "\u202e" not in page and "\x07" not in page and "49{%" not in page


def test_what_is_asked_for_is_inert_too(pages: Pages) -> None:
    for text in EVIL:
        for query in ({"q": text}, {"task": text}, {"after": text}, {text: "x"}):
            response = pages.client.get("/jobs", params=query)
            assert Elements(response.text).scripts == 2, response.status_code


# Headers, files, mounts


@ON_BOTH
def test_pages_may_load_only_their_own_files(pages: Pages) -> None:
    answer = pages.client.get("/jobs")
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and policy.startswith("default-src 'none'")
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert Elements(answer.text).scripts == 2


def test_files_are_kept_for_ever_under_their_hash(pages: Pages) -> None:
    page = pages.get("/")
    ours = ("jobqueue.css", "jobqueue.js", "chart.js")
    for name in (*ours, "htmx.min.js", "uPlot.iife.min.js", "uPlot.min.css"):
        path = next(part for part in page.split('"') if part.endswith(name))
        answer = pages.client.get("/" + path.removeprefix("./"))
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
        assert "no-store" not in answer.headers["cache-control"]
    assert pages.client.get("/static/0000000000000000/jobqueue.css").status_code == 404
    assert pages.client.get("/static/../app.py").status_code == 404


def test_it_is_mounted_below_any_path(jobs: JobQueue) -> None:
    outer: Any = Starlette()
    outer.has_token, outer.release = False, list  # As the server asks of an app.
    outer.mount("/ops/jobs", create_app(jobs))
    id_ = jobs.registry["add"].enqueue(1, 1).id
    with Server(outer, port=0, grace=1) as server, Client(base_url=server.url) as client:
        pages = Pages(client, "/ops/jobs")
        assert 'href="./jobs?queue=default"' in pages.get("/")
        page = pages.get("/jobs")
        assert f'href="./jobs/{id_}"' in page
        assert link_of(page, "Cancel all…") == "./jobs/cancel?all=yes"
        answer = pages.send(f"/jobs/{id_}/cancel")
        assert answer.headers["location"] == f"../../jobs/{id_}"
        assert "Path=/ops/jobs;" in answer.headers["set-cookie"]
        assert "Cancelled 1 job." in pages.get(f"/jobs/{id_}")


def test_it_is_mounted_in_a_wsgi_program(jobs: JobQueue) -> None:
    """As Flask and Django have it: below a path, by a2wsgi."""
    from a2wsgi import ASGIMiddleware

    app = ASGIMiddleware(create_app(jobs, hosts=["testserver"]))
    id_ = jobs.registry["add"].enqueue(1, 1).id

    def outer(environ: dict[str, Any], start: Any) -> Any:
        below = environ["PATH_INFO"].removeprefix("/ops")
        return app({**environ, "SCRIPT_NAME": "/ops", "PATH_INFO": below}, start)

    transport = httpx.WSGITransport(app=outer)
    with httpx.Client(transport=transport, base_url="http://testserver") as client:
        pages = Pages(client, "/ops")
        assert 'href="./jobs?queue=default"' in pages.get("/")
        answer = pages.send(f"/jobs/{id_}/cancel")
        assert answer.headers["location"] == f"../../jobs/{id_}"
        assert "Cancelled 1 job." in pages.get(f"/jobs/{id_}")
