"""Rows 50 to 65 of the catalogue of bad input: each is refused in its way, and nothing is enqueued by it."""

import gzip
import json
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.errors import InvalidOption
from jobqueue.web import Server, connections, create_app, server
from jobqueue.web.security import RequestGuard
from tests.conftest import database, record_version
from tests.web.conftest import Client, Dial, Serve, add_tasks, enqueue_text, working

TOKEN = "a-long-random-token"
JOB = {"task": "add", "args": [2, 3]}
BODY = json.dumps(JOB)


Standing = tuple[JobQueue, Client]


@pytest.fixture(scope="module")
def standing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Standing]]:
    """One front per database for all tests of this file, which leave it as it was: it stops slowly."""
    with ExitStack() as stack:

        @cache
        def front(backend_name: str) -> Standing:
            folder = tmp_path_factory.mktemp("front")
            url = stack.enter_context(database(backend_name, request, folder))
            jobs = stack.enter_context(JobQueue(url))
            add_tasks(jobs)
            server = stack.enter_context(Server(create_app(jobs), port=0, grace=1))
            return jobs, stack.enter_context(Client(base_url=server.url, timeout=60))

        yield front


@pytest.fixture
def jobs(
    standing: Callable[[str], Standing], backend_name: str, request: pytest.FixtureRequest
) -> JobQueue:
    record_version(request, backend_name)
    return standing(backend_name)[0]


@pytest.fixture
def client(standing: Callable[[str], Standing], backend_name: str) -> Client:
    return standing(backend_name)[1]


@pytest.fixture(autouse=True)
def unharmed(jobs: JobQueue) -> Iterator[None]:
    """Whatever a test of this file sends wrongly, no job comes of it."""
    yield
    assert [job.id for job in jobs.list(limit=None) if "ok" not in job.tags] == []


def still_serves(client: Client) -> bool:
    return client.enqueue(1, 1, tags=["ok"]).status_code == 202


# 50: method and path


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [
        (405, "DELETE", "/api/jobs"),
        (405, "PUT", "/api/jobs/1"),
        (405, "GET", "/api/jobs/1/cancel"),
        (405, "POST", "/healthz"),
        (405, "OPTIONS", "/api/jobs"),
        (405, "BREW", "/metrics"),
        (404, "GET", "/"),
        (404, "GET", "/api"),
        (404, "GET", "/api/jobs/"),
        (404, "GET", "//api/jobs"),
        (404, "GET", "/api//jobs"),
        (404, "GET", "/api/%2e%2e/healthz"),
        (404, "GET", "/api/../healthz"),
        (404, "GET", "/healthz%00"),
        (404, "GET", "/%c0%af"),
        (404, "GET", "http://evil.example/healthz"),
        (400, "GET", "/api/jobs/%00"),
        (400, "GET", "/api/jobs/1%00"),
        (400, "GET", "/api/jobs/%c0%ae"),
        (400, "GET", "/api/jobs/-1"),
        (400, "GET", "/api/jobs/1;DROP"),
        (400, "GET", "/api/jobs/last"),
        (400, "GET", "/api/jobs/9223372036854775808"),
        (404, "GET", "/api/jobs/9223372036854775807"),
        (404, "GET", "/api/jobs/1234567890"),
        (414, "GET", "/" + "x" * 9000),
        (414, "GET", "/" + "x" * 100_000),
    ],
)
def test_50_a_wrong_method_or_path(
    client: Client, dial: Dial, status: int, method: str, path: str
) -> None:
    wire = dial(client)
    wire.request(method, path)
    head, body = wire.answer()
    assert int(head.split()[1]) == status, head
    assert json.loads(body)["error"]["message"]
    assert ("\r\nallow: " in head.lower()) == (status == 405)
    assert still_serves(client)


@pytest.mark.parametrize(
    ("field", "query"),
    [
        ("state", "state=runing"),
        ("limit", "limit=0"),
        ("limit", "limit=-1"),
        ("limit", "limit=1000000000"),
        ("limit", "limit=x"),
        ("task", "task=a%20b"),
        ("queue", "queue='%3B--"),
        ("tag", "tag=%00"),
        ("since", "since=yesterday"),
        ("order", "order=id;--"),
        ("limit", "limit=1&limit=2"),
    ],
)
def test_50_a_wrong_query(client: Client, field: str, query: str) -> None:
    assert client.refused(400, "GET", f"/api/jobs?{query}")["field"] == field


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "soon", ""])
def test_50_a_wrong_wait(client: Client, wait: str) -> None:
    id_ = client.id(1, 1, tags=["ok"])
    assert client.refused(400, "GET", f"/api/jobs/{id_}?wait={wait}")["field"] == "wait"


# 51: where a body ends


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 30", "Transfer-Encoding: chunked"],
        ["Content-Length: -1"],
        ["Content-Length: +5"],
        ["Content-Length: 5, 6"],
        ["Content-Length: 0x10"],
        ["Content-Length: " + "9" * 5000],
        ["Content-Length : 5"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: x"],
    ],
)
def test_51_an_ambiguous_length(client: Client, dial: Dial, headers: list[str]) -> None:
    wire = dial(client)
    wire.request("POST", "/api/jobs", "Content-Type: application/json", *headers, body=BODY)
    # One refusal, and no second request in what follows.
    assert wire.status() == 400
    assert wire.is_closed()
    assert still_serves(client)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, "zz\r\n{}\r\n0\r\n\r\n"),
        (400, "-1\r\n{}\r\n0\r\n\r\n"),
        (400, "fffffffffffffffffffffff\r\n{}"),
        (400, "2;" + "x" * 1_000_000 + "\r\n{}\r\n0\r\n\r\n"),
        (400, "2\r\n{}xx0\r\n\r\n"),
    ],
)
def test_51_broken_chunks(client: Client, dial: Dial, status: int, body: str) -> None:
    wire = dial(client)
    headers = ["Content-Type: application/json", "Transfer-Encoding: chunked"]
    wire.request("POST", "/api/jobs", *headers, body=body)
    assert wire.status() == status
    assert wire.is_closed()


def test_51_no_length_is_no_body(client: Client, dial: Dial) -> None:
    wire = dial(client)
    wire.request("POST", "/api/jobs", "Content-Type: application/json")
    head, body = wire.answer()
    assert head.startswith("HTTP/1.1 400") and b"not valid JSON" in body


def test_51_more_than_the_length_is_not_part_of_it(client: Client, dial: Dial) -> None:
    wire = dial(client)
    headers = ["Content-Type: application/json", "Content-Length: 2"]
    wire.request("POST", "/api/jobs", *headers, body="{}GARBAGE\r\n\r\n")
    assert wire.status() == 400  # For {}; then for the garbage.
    assert wire.is_closed()


# 52: what the body is


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin-1",
        "application/jsonp",
        "text/plain, application/json",
    ],
)
def test_52_a_body_of_another_type(client: Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    error = client.refused(415, "POST", "/api/jobs", content=BODY, headers=headers)
    assert error["field"] == "content-type"


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", '; charset="UTF-8"'])
def test_52_json_in_utf_8_is_taken(client: Client, charset: str) -> None:
    line = json.dumps(JOB | {"tags": ["ok"]})
    headers = {"Content-Type": f"application/json{charset}"}
    assert client.post("/api/jobs", content=line, headers=headers).status_code == 202


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_52_an_encoded_body_is_not_unpacked(client: Client, encoding: str) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    client.refused(415, "POST", "/api/jobs", content=bomb, headers=headers)


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_52_verbs_take_no_form(client: Client, verb: str) -> None:
    id_ = client.id(1, 1, tags=["ok"])
    client.refused(415, "POST", f"/api/jobs/{id_}/{verb}", data={"a": "b"})
    headers = {"Content-Type": "text/plain"}
    client.refused(415, "POST", f"/api/jobs/{id_}/{verb}", headers=headers)
    assert client.get(f"/api/jobs/{id_}").json()["state"] == "available"


@pytest.mark.parametrize(
    ("message", "body"),
    [
        ("NaN is not JSON at offset", '{"task": "echo", "args": [NaN]}'),
        ("number out of range: 1e999", '{"task": "echo", "args": [1e999]}'),
        ("integer beyond 64 bits", '{"task": "echo", "args": [9223372036854775808]}'),
        ("integer beyond 64 bits", '{"task": "echo", "args": [' + "9" * 5000 + "]}"),
        ("NUL characters", '{"task": "echo", "args": ["a\\u0000b"]}'),
        ("lone surrogate", '{"task": "echo", "args": ["\\ud800"]}'),
        ("duplicate key 'task'", '{"task": "echo", "task": "add"}'),
        ("nested deeper", '{"task": "echo", "args": [' + "[" * 70 + "]" * 70 + "]}"),
        ("nested deeper", "[" * 100_000),
        ("invalid UTF-8 at byte offset 10", b'{"task": "\xff"}'),
        ("not valid JSON", ""),
        ("not valid JSON", "{"),
        ("must be an object", '"add"'),
        ("must be an object", "null"),
        ('names no "task"', "{}"),
        ("is no key of a job; there are", '{"task": "add", "arg": [2, 3]}'),
        ("missing a required argument", '{"task": "add", "args": [2]}'),
        ("args: must be a list", '{"task": "add", "args": {"x": 2}}'),
        ("kwargs: must be an object", '{"task": "add", "kwargs": [2, 3]}'),
        ("is not a name", '{"task": "../x"}'),
        ("is not a name", '{"task": 5}'),
    ],
)
def test_52_a_body_that_is_no_job(client: Client, message: str, body: str | bytes) -> None:
    headers = {"Content-Type": "application/json"}
    error = client.refused(400, "POST", "/api/jobs", content=body, headers=headers)
    assert message in error["message"]


def test_52_a_body_that_is_too_large_is_refused_unread(client: Client, dial: Dial) -> None:
    wire = dial(client)
    headers = ["Content-Type: application/json", "Content-Length: 100000000"]
    wire.request("POST", "/api/jobs", *headers)
    assert wire.status() == 413


def test_52_a_large_body_without_a_length_is_refused_on_the_way(client: Client) -> None:
    def parts() -> Iterator[bytes]:
        yield b"["
        for _ in range(10):
            yield b" " * (1 << 20)

    headers = {"Content-Type": "application/json"}
    client.refused(413, "POST", "/api/jobs", content=parts(), headers=headers)
    assert still_serves(client)


def test_52_one_job_has_a_smaller_bound_than_a_batch(client: Client) -> None:
    body = {"task": "echo", "args": ["x" * (1 << 20)]}
    assert client.refused(413, "POST", "/api/jobs", json=body)["field"] == "body"
    error = client.refused(400, "POST", "/api/jobs", json=[body])
    assert "at most 1,048,576 are kept" in error["message"] and len(str(error)) < 1000


# 53: no HTTP


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: {host}\r\nX-Large: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: {host}\r\n" + b"X-A: b\r\n" * 1000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: {host}\r\nX-A: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: {host}\r\nX A: b\r\n\r\n",
        b"GET /\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100 + b"\r\n\r\n",
        b"\x00" * 1000 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: {host}\r\n\r\n",
    ],
    ids=["header", "headers", "newline", "name", "0.9", "preface", "tls", "zeros", "9.9"],
)
def test_53_what_is_no_http_ends_the_connection(client: Client, dial: Dial, data: bytes) -> None:
    wire = dial(client)
    wire.send(data.replace(b"{host}", wire.host.encode()))
    assert wire.status() in (400, 431, 505)
    assert wire.is_closed()
    assert still_serves(client)


# 54: slow clients


@pytest.fixture
def hasty(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client of a server that waits 0.6 s for a request."""
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.6)
    return serve()


HALF = "GET /healthz HTTP/1.1\r\nHost: {host}\r\nX-Never: "
BODYLESS = (
    "POST /api/jobs HTTP/1.1\r\nHost: {host}\r\nContent-Type: %s\r\nContent-Length: 99\r\n\r\n"
)


@pytest.mark.parametrize("backend_name", ["sqlite"])
@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, ""),
        (0, HALF),
        (0, BODYLESS % "application/json" + "{"),
        (415, BODYLESS % "text/plain"),
        (415, BODYLESS % "text/plain" + "x" * 99),
        (413, BODYLESS.replace("99", "9" * 9) % "application/json"),
        (200, HALF.replace("X-Never: ", "\r\n") + HALF),
    ],
    ids=["nothing", "half a header", "half a body", "415", "rest", "413", "pipelined"],
)
def test_54_a_request_that_does_not_come_in_time_ends_the_connection(
    hasty: Client, dial: Dial, status: int, text: str
) -> None:
    wire = dial(hasty)
    wire.send(text.replace("{host}", wire.host))
    assert wire.status() == status
    assert wire.is_closed()
    assert still_serves(hasty)


@pytest.mark.parametrize("backend_name", ["sqlite"])
def test_54_a_header_that_comes_by_the_byte(hasty: Client, dial: Dial) -> None:
    """A further byte does not restart the clock."""
    wire = dial(hasty)
    wire.socket.settimeout(0.02)
    for _ in range(1000):
        try:
            wire.send("G")
            assert wire.socket.recv(12) == b""
        except TimeoutError:
            continue
        except ConnectionError:
            pass
        return
    pytest.fail("it was never cut off")


@pytest.mark.parametrize("backend_name", ["sqlite"])
def test_54_a_client_that_does_not_read(
    hasty: Client, dial: Dial, jobs: JobQueue, wait_until: Callable[..., Any]
) -> None:
    text = "x" * 500_000
    jobs.enqueue_many([jobs.registry["echo"].options(tags=["ok"]).call(text) for _ in range(60)])
    wire = dial(hasty)
    wire.request("GET", "/api/jobs?limit=60")
    assert still_serves(hasty)

    def is_cut_off() -> bool:
        try:
            wire.send("\r\n")
        except OSError:
            return True
        return False

    wait_until(is_cut_off, timeout=30)


@pytest.mark.parametrize("backend_name", ["sqlite"])
def test_54_beyond_the_limit_of_connections_requests_are_refused(
    serve: Serve, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 3)
    client = serve()
    wires = [dial(client) for _ in range(4)]
    for wire, status in zip(reversed(wires), (503, 200, 200, 200)):
        wire.request("GET", "/healthz")
        assert wire.status() == status


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
def test_55_no_host_and_two_hosts(client: Client, dial: Dial, hosts: str) -> None:
    wire = dial(client)
    wire.send(f"GET /healthz HTTP/1.1\r\n{hosts}\r\n")
    assert wire.status() == 400


def test_55_no_host_in_http_1_0(client: Client, dial: Dial) -> None:
    wire = dial(client)
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


def test_55_every_answer_has_the_security_headers(client: Client, dial: Dial) -> None:
    heads = []
    for path in ("/healthz", "/api/jobs", "/metrics", "/nothing", "/api/jobs/x"):
        wire = dial(client)
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


def test_56_two_authorizations_are_none(serve: Serve, dial: Dial) -> None:
    wire = dial(serve(token=TOKEN))
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


# 57: batches


def test_57_a_batch_of_too_many(client: Client) -> None:
    error = client.refused(413, "POST", "/api/jobs", json=[JOB] * 10_001)
    assert (error["field"], error["value"]) == ("body", 10_001)


def test_57_an_empty_batch(client: Client) -> None:
    assert "empty" in client.refused(400, "POST", "/api/jobs", json=[])["message"]


def test_57_right_and_wrong_ones(client: Client) -> None:
    lines: list[Any] = [JOB, 5, {"task": "no"}, [], JOB, {"task": "add", "args": [1, 2], "a": 1}]
    response = client.post("/api/jobs", json=lines)
    assert response.status_code == 400
    assert [error["index"] for error in response.json()["errors"]] == [1, 2, 3, 5]
    assert response.json()["error"]["message"].endswith("; nothing was enqueued")


def test_57_the_list_of_what_is_wrong_is_bounded(client: Client) -> None:
    response = client.post("/api/jobs", json=[{"task": "no"}] * 5000)
    assert len(response.json()["errors"]) == 100


def test_57_one_key_twice_is_one_job(client: Client) -> None:
    line = JOB | {"unique_key": "k", "tags": ["ok"]}
    answer = client.post("/api/jobs", json=[line, line]).json()
    assert (answer["enqueued"], answer["existing"]) == (1, 1)
    assert answer["ids"][0] == answer["ids"][1]


# 58: what is shown


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "javascript:alert(1)",
        "{{7*7}}",
        "=cmd|' /C calc'!A0",
        "abc\u202e\u2066def",
        "\x1b[31m\x07\x9b2J",
        "x" * 900_000,
    ],
    ids=range(8),
)
def test_58_data_comes_back_as_it_is_and_is_never_a_page(client: Client, text: str) -> None:
    id_ = client.id(text, task="echo", tags=["ok"])
    for path in (f"/api/jobs/{id_}", "/api/jobs"):
        response = client.get(path)
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-content-type-options"] == "nosniff"
        answer = response.json()
        assert (answer if isinstance(answer, dict) else answer[0])["args"] == [text]
        assert response.text.isascii() and "\x1b" not in response.text


# 59: tags; 62: timeouts; 22 to 28: the other options, by the one rule for all doors


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("tags", {"tags": [f"t{n}" for n in range(10_000)]}),
        ("tag", {"tags": ["x" * 1_000]}),
        ("tag", {"tags": ["a b"]}),
        ("tags", {"tags": "red"}),
        ("tags", {"tags": 5}),
        ("timeout", {"timeout": 0}),
        ("timeout", {"timeout": -1}),
        ("timeout", {"timeout": "soon"}),
        ("deadline", {"deadline": 0}),
        ("queue", {"queue": "*"}),
        ("queue", {"queue": None}),
        ("priority", {"priority": 1.5}),
        ("priority", {"priority": True}),
        ("max_attempts", {"max_attempts": 0}),
        ("delay", {"delay": -5}),
        ("at", {"at": "2026-12-24T18:00"}),
        ("at", {"at": "2026-02-30T00:00Z"}),
        ("unique_key", {"unique_key": ""}),
        ("unique_key", {"unique_key": {}}),
        ("unique_until", {"unique_until": "never"}),
    ],
)
def test_59_and_62_options_out_of_range(
    client: Client, field: str, options: dict[str, Any]
) -> None:
    assert client.refused(400, "POST", "/api/jobs", json=JOB | options)["field"] == field


# 60, 61: what handlers do wrongly


def test_60_progress_out_of_range_is_refused_and_the_job_goes_on(
    client: Client, jobs: JobQueue
) -> None:
    id_ = client.id(task="overdo", tags=["ok"])
    with working(jobs):
        assert client.get(f"/api/jobs/{id_}?wait=30").json()["result"] == "went on"


def test_61_snoozing_for_ever_ends(client: Client, jobs: JobQueue) -> None:
    id_ = client.id(task="put_off", tags=["ok"])
    with working(jobs, max_snoozes=2):
        job = client.get(f"/api/jobs/{id_}?wait=30").json()
    assert job["state"] == "failed" and "snooze" in job["reason"]


# 63: lines in bulk (a file's are in tests/cli/commands/test_bulk.py)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([JOB]).encode("utf-16"),
        b"\xef\xbb\xbf" + BODY.encode(),
        f"{BODY}\n{BODY}\n".encode(),
        f"[{BODY},]".encode(),
    ],
    ids=["utf-16", "bom", "lines", "comma"],
)
def test_63_what_is_no_list_of_jobs(client: Client, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    client.refused(400, "POST", "/api/jobs", content=content, headers=headers)


# 64: where it listens (the command's are in test_command.py)


def test_64_beyond_loopback_a_token_is_needed(jobs: JobQueue) -> None:
    with pytest.raises(InvalidOption, match="a token is needed"):
        Server(create_app(jobs), "0.0.0.0", 0)
    Server(create_app(jobs, token=TOKEN), "0.0.0.0", 0)


def test_64_without_a_token_not_any_name_is_served(jobs: JobQueue) -> None:
    with pytest.raises(InvalidOption, match="without a token, name those"):
        create_app(jobs, hosts=None)
    create_app(jobs, hosts=None, token=TOKEN)


@pytest.mark.parametrize("port", [-1, 65536])
def test_64_a_port_that_is_none(jobs: JobQueue, port: int) -> None:
    with pytest.raises(InvalidOption, match="port: "):
        Server(create_app(jobs), port=port)


@pytest.mark.parametrize("host", ["nowhere.invalid", "256.1.1.1", "a b"])
def test_64_a_host_that_is_none(jobs: JobQueue, host: str) -> None:
    with pytest.raises(InvalidOption, match="host: "):
        Server(create_app(jobs), host)


@pytest.mark.parametrize("token", ["", "a b", "ü", "a\n"])
def test_64_a_token_that_no_header_can_hold(jobs: JobQueue, token: str) -> None:
    with pytest.raises(InvalidOption, match="token: "):
        create_app(jobs, token=token)


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


def test_nothing_that_was_sent_is_logged(serve: Serve, dial: Dial, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    client = serve(token=TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    body = JOB | {"task": "echo", "args": ["argument-sentinel"], "tags": ["ok"]}
    client.post("/api/jobs", json=body, headers=headers)
    client.get(f"/api/jobs?token={TOKEN}", headers=headers)
    client.get("/api/jobs", headers={"Authorization": f"Bearer {TOKEN}!"})
    wire = dial(client)
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


def test_a_pipelined_request_is_answered_in_turn(client: Client, dial: Dial) -> None:
    wire = dial(client)
    wire.send(enqueue_text(wire.host).replace('"args"', '"arg "') * 2)
    head, _ = wire.answer()
    assert head.startswith("HTTP/1.1 400")
    assert wire.status() == 400
