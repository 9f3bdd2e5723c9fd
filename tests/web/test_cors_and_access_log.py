"""Pages of other sites that are named may use the API; and each request can be logged, without what is secret of it."""

import asyncio
import json
import logging
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.errors import InvalidOption
from jobqueue.logs import JsonFormatter
from jobqueue.web import create_app
from jobqueue.web.access_log import answer_logged
from tests.web.conftest import Client, Serve

pytestmark = pytest.mark.databases("sqlite")

TOKEN = "a-long-random-token"
SITE = "https://app.example"
ASKS = {
    "Origin": SITE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
    "Sec-Fetch-Site": "cross-site",
}
SENDS = {"Origin": SITE, "Sec-Fetch-Site": "cross-site", "Authorization": f"Bearer {TOKEN}"}
BODY = {"task": "add", "args": [1, 2]}


def cors_of(response: Any) -> dict[str, str]:
    return {
        name: value
        for name, value in response.headers.items()
        if name.startswith("access-control-") or name == "vary"
    }


@pytest.fixture
def shared(serve: Serve) -> Client:
    """A client of a server with a token that is shared with one site."""
    return serve(token=TOKEN, origins=["HTTPS://app.example:443", "http://localhost:5173"])


def test_a_preflight_of_a_named_site_is_answered_without_the_token(shared: Client) -> None:
    response = shared.request("OPTIONS", "/api/jobs", headers=ASKS)
    assert (response.status_code, response.content) == (204, b"")
    assert cors_of(response) == {
        "access-control-allow-origin": SITE,
        "access-control-allow-methods": "GET, POST, DELETE",
        "access-control-allow-headers": "authorization, content-type",
        "access-control-expose-headers": "link, location, retry-after, jobqueue-notice",
        "access-control-max-age": "600",
        "vary": "origin",
    }


def test_a_named_site_uses_the_api_and_reads_its_refusals(shared: Client) -> None:
    for status, response in (
        (202, shared.post("/api/jobs", json=BODY, headers=SENDS)),
        (200, shared.get("/api/jobs?limit=1", headers=SENDS)),
        (400, shared.get("/api/jobs?limit=x", headers=SENDS)),
        (401, shared.get("/api/jobs", headers=SENDS | {"Authorization": "Bearer x"})),
        (404, shared.delete("/api/jobs/99", headers=SENDS)),
        (415, shared.post("/api/jobs", content="{}", headers=SENDS)),
    ):
        assert response.status_code == status, response.text
        assert cors_of(response) == {
            "access-control-allow-origin": SITE,
            "access-control-expose-headers": "link, location, retry-after, jobqueue-notice",
            "vary": "origin",
        }


@pytest.mark.parametrize(
    ("status", "method", "path", "changed"),
    [
        (403, "OPTIONS", "/api/jobs", {"Origin": "https://evil.example"}),
        (403, "OPTIONS", "/api/jobs", {"Origin": "http://app.example"}),
        (403, "OPTIONS", "/api/jobs", {"Origin": "https://app.example:8443"}),
        (403, "OPTIONS", "/api/jobs", {"Origin": "https://app.example.evil.example"}),
        (403, "OPTIONS", "/api/jobs", {"Origin": "null"}),
        (403, "OPTIONS", "/jobs", {}),
        (403, "GET", "/jobs", {}),
        (403, "POST", "/jobs/1/cancel", {}),
        (403, "GET", "/api/jobs", {"Origin": "https://evil.example"}),
        (403, "OPTIONS", "/api/jobs", {"Host": "evil.example"}),
        (401, "OPTIONS", "/api/jobs", {"Access-Control-Request-Method": None}),
    ],
)
def test_no_other_site_and_no_page_is_shared(
    shared: Client, status: int, method: str, path: str, changed: dict[str, Any]
) -> None:
    headers = {name: value for name, value in (ASKS | changed).items() if value is not None}
    response = shared.request(method, path, headers=headers)
    assert response.status_code == status
    allowed = "access-control-allow-origin" in response.headers
    assert allowed == (headers["Origin"] == SITE and path.startswith("/api"))
    assert "access-control-allow-credentials" not in response.headers


def test_without_named_sites_there_is_no_cors_header(serve: Serve) -> None:
    client = serve()
    response = client.request("OPTIONS", "/api/jobs", headers=ASKS)
    assert (response.status_code, cors_of(response)) == (403, {})
    assert cors_of(client.get("/api/jobs")) == {}


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "https://*.example", "app.example", "https://a/", "null", "", "ftp://a"),
        *("https://ä.de", "https://a:0", "https://a:65536"),
    ],
)
def test_only_whole_sites_are_named(jobs: JobQueue, origin: str) -> None:
    with pytest.raises(InvalidOption, match="origin: "):
        create_app(jobs, origins=[origin])


def test_names_are_given_as_browsers_send_them(jobs: JobQueue) -> None:
    with pytest.raises(InvalidOption, match="host: 'ä.de' has other letters .* with xn--"):
        create_app(jobs, hosts=["ä.de"])
    create_app(jobs, hosts=["xn--4ca.de"], origins=["https://xn--4ca.de"])


# The access log


def test_each_request_is_a_line_without_what_is_secret(
    serve: Serve, caplog: Any, wait_until: Any
) -> None:
    caplog.set_level(logging.INFO, "jobqueue.web.access")
    client = serve(token=TOKEN, access_log=True)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    sent = client.post("/api/jobs?", json=BODY | {"tags": ["sentinel"]}, headers=headers)
    client.get(f"/api/jobs?token={TOKEN}&q=sentinel")
    client.get("/api/jobs/1%0a2/" + "x" * 1000)
    client.get("/healthz")

    def logged() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == "jobqueue.web.access"]

    wait_until(lambda: len(logged()) == 4)  # A line follows its answer.
    records = logged()
    lines = [json.loads(JsonFormatter().format(record)) for record in records]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/api/jobs", 202),
        ("GET", "/api/jobs", 401),
        ("GET", ("/api/jobs/1\\n2/" + "x" * 1000)[:200], 401),
        ("GET", "/healthz", 200),
    ]
    assert {(line["event"], line["client"]) for line in lines} == {("request", "127.0.0.1")}
    assert lines[0]["bytes"] == len(sent.content) and 0 <= lines[0]["duration"] < 60
    said = records[0].getMessage()
    assert said.startswith(f"127.0.0.1 POST /api/jobs: 202, {len(sent.content)} bytes in 0.")
    assert TOKEN not in str(lines) + caplog.text and "sentinel" not in str(lines) + caplog.text


def test_a_name_of_the_client_from_a_proxy_is_escaped(caplog: Any) -> None:
    caplog.set_level(logging.INFO, "jobqueue.web.access")
    scope = {"method": "GET", "path": "/", "client": ("\x9b31m\n", 1)}

    async def app(*_: Any) -> None: ...

    asyncio.run(answer_logged(app, scope, app, app))
    assert caplog.messages[0].startswith("\\x9b31m\\n GET /: None, 0 bytes")


def test_without_asking_no_request_is_logged(client: Client, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    client.get("/api/jobs")
    assert not any(record.name == "jobqueue.web.access" for record in caplog.records)
