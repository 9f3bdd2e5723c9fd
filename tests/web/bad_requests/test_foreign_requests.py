"""Rows 55 and 56 of the catalogue of bad input: other sites, other hosts, wrong tokens; and what is said and logged of none of them."""

import logging
import socket
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.web import Server, create_app
from jobqueue.web.security import RequestGuard
from tests.web.bad_requests.conftest import BODY, HTTP_ONLY, JOB, TOKEN
from tests.web.conftest import Client, Connect, Serve, enqueue_text

pytestmark = HTTP_ONLY


# 55: browsers


@pytest.mark.parametrize(
    ("status", "host"),
    [
        (403, "evil.example"),
        (403, "127.0.0.1.evil.example"),
        (403, "localhost.evil.example"),
        (403, "evil.example:80"),
        (403, "127.0.0.2"),
        (400, "user@localhost"),
        (400, ""),
        (400, "localhost:port"),
        (400, "localhost/x"),
        (400, "[::1"),
        (200, "localhost"),
        (200, "LocalHost:99"),
        (200, "127.0.0.1"),
        (200, "[::1]:8081"),
    ],
)
@pytest.mark.parametrize("path", ["/api/jobs", "/healthz", "/nothing"])
def test_55_the_host_is_one_of_ours(client: Client, status: int, host: str, path: str) -> None:
    got = client.get(path, headers={"Host": host}).status_code
    assert got == (404 if status == 200 and path == "/nothing" else status)


@pytest.mark.parametrize("hosts", ["", "Host: localhost\r\nHost: evil.example\r\n"])
def test_55_no_host_and_two_hosts(client: Client, connect: Connect, hosts: str) -> None:
    wire = connect(client)
    wire.send(f"GET /healthz HTTP/1.1\r\n{hosts}\r\n")
    assert wire.status() == 400


def test_55_no_host_in_http_1_0(client: Client, connect: Connect) -> None:
    wire = connect(client)
    wire.send("GET /healthz HTTP/1.0\r\n\r\n")
    assert wire.status() == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_55_another_site(client: Client, headers: dict[str, str], content_type: str) -> None:
    headers = {**headers, "Content-Type": content_type}
    client.refused(403, "POST", "/api/jobs", content=BODY, headers=headers)
    assert client.get("/api/jobs", headers=headers).status_code == 403
    assert "access-control-allow-origin" not in client.get("/healthz").headers


def test_55_our_own_site(client: Client) -> None:
    own = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    response = client.post("/api/jobs", json=JOB | {"tags": ["ok"]}, headers=own)
    assert response.status_code == 202


def test_55_other_names_are_served_if_they_are_allowed(serve: Serve) -> None:
    client = serve(hosts=["jobs.example"])
    assert client.get("/healthz", headers={"Host": "jobs.example:8"}).status_code == 200
    assert client.get("/healthz").status_code == 403


def test_55_every_answer_has_the_security_headers(client: Client, connect: Connect) -> None:
    heads = []
    for path in ("/healthz", "/api/jobs", "/metrics", "/nothing", "/api/jobs/x"):
        wire = connect(client)
        wire.request("GET", path)
        heads.append(wire.answer()[0].lower())
    for head in heads:
        assert "x-content-type-options: nosniff" in head
        assert "content-security-policy: default-src 'none'" in head
        assert "cache-control: no-store" in head
        assert "server:" not in head


# 56: tokens


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        TOKEN,
        "Bearer",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer x {TOKEN}",
        "Bearer " + "x" * 20_000,
        "Bearer ümläut".encode("latin-1"),
    ],
)
def test_56_a_wrong_token(serve: Serve, value: Any) -> None:
    client = serve(token=TOKEN)
    headers = {} if value is None else {"Authorization": value}
    for method, path in (("GET", "/api/jobs"), ("GET", "/metrics"), ("GET", "/nothing")):
        assert client.request(method, path, headers=headers).status_code == 401
    response = client.post("/api/jobs", json=JOB, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in response.text


def test_56_a_token_in_the_url_is_none(serve: Serve) -> None:
    client = serve(token=TOKEN)
    assert client.get(f"/api/jobs?token={TOKEN}").status_code == 401
    assert client.get(f"/api/jobs?access_token={TOKEN}").status_code == 401


def test_56_two_authorizations_are_none(serve: Serve, connect: Connect) -> None:
    wire = connect(serve(token=TOKEN))
    wire.request("GET", "/api/jobs", *[f"Authorization: Bearer {TOKEN}"] * 2)
    assert wire.status() == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_56_the_right_token(serve: Serve, scheme: str) -> None:
    client = serve(token=TOKEN)
    headers = {"Authorization": f"{scheme} {TOKEN}"}
    assert client.get("/api/jobs", headers=headers).status_code == 200
    assert client.get("/metrics", headers=headers).status_code == 200


def test_56_probes_need_none(serve: Serve) -> None:
    client = serve(token=TOKEN)
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_56_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(
        "jobqueue.web.security.hmac.compare_digest", lambda *two: compared.append(two) or False
    )
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/jobs",
        "query_string": b"",
        "http_version": "1.1",
    }
    for given in (b"x", b"x" * 10_000):
        headers = [(b"host", b"localhost"), (b"authorization", b"Bearer " + given)]
        with pytest.raises(Exception, match="token"):
            RequestGuard(TOKEN, ["localhost"], read_only=False).check({**scope, "headers": headers})
    assert [len(part) for two in compared for part in two] == [32] * 4


# No traceback and no secret, whatever happens


def test_what_nobody_foresaw_says_nothing_of_itself(
    client: Client, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    secret = "hunter2-sentinel"

    def broken(*_: object, **__: object) -> None:
        raise KeyError(secret)

    monkeypatch.setattr(jobs, "enqueue_many", broken)
    caplog.set_level(logging.DEBUG)
    error = client.refused(500, "POST", "/api/jobs", json=JOB)
    assert "not with the request" in error["message"]
    assert secret not in caplog.text and "Traceback" not in caplog.text
    assert "500: unexpected KeyError at" in caplog.text


def test_nothing_that_was_sent_is_logged(serve: Serve, connect: Connect, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    client = serve(token=TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    body = JOB | {"task": "echo", "args": ["argument-sentinel"], "tags": ["ok"]}
    client.post("/api/jobs", json=body, headers=headers)
    client.get(f"/api/jobs?token={TOKEN}", headers=headers)
    client.get("/api/jobs", headers={"Authorization": f"Bearer {TOKEN}!"})
    wire = connect(client)
    wire.send(f"GET /{TOKEN} HTTP/1.1\r\nAuthorization Bearer {TOKEN}\r\n\r\n")
    wire.is_closed()
    ours = "".join(
        record.getMessage() for record in caplog.records if not record.name.startswith("http")
    )
    assert TOKEN not in ours and "sentinel" not in ours


def test_it_is_asked_at_an_address_of_version_6_too(jobs: JobQueue) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = Server(create_app(jobs), "::1", 0, grace=1)
    with server, Client(base_url=server.url) as client:
        assert client.get("/healthz").status_code == 200


def test_a_pipelined_request_is_answered_in_turn(client: Client, connect: Connect) -> None:
    wire = connect(client)
    wire.send(enqueue_text(wire.host).replace('"args"', '"arg "') * 2)
    head, _ = wire.answer()
    assert head.startswith("HTTP/1.1 400")
    assert wire.status() == 400
