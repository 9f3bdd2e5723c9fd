"""Rows 50 to 53 of the catalogue of bad input: each is refused in its way, and nothing is enqueued by it."""

import gzip
import json
from collections.abc import Iterator

import pytest

from tests.web.bad_requests.conftest import BODY, HTTP_ONLY, JOB, still_serves
from tests.web.conftest import Client, Connect

pytestmark = HTTP_ONLY


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
        (404, "GET", "/nothing"),
        (404, "GET", "/api/"),
        (405, "POST", "/api"),
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
        (400, "GET", "/api/jobs/0"),
        (400, "GET", "/api/jobs/1e3"),
        (400, "GET", "/api/jobs/0x10"),
        (400, "GET", "/api/jobs/99999999999999999999"),
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
    client: Client, connect: Connect, status: int, method: str, path: str
) -> None:
    wire = connect(client)
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
def test_51_an_ambiguous_length(client: Client, connect: Connect, headers: list[str]) -> None:
    wire = connect(client)
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
def test_51_broken_chunks(client: Client, connect: Connect, status: int, body: str) -> None:
    wire = connect(client)
    headers = ["Content-Type: application/json", "Transfer-Encoding: chunked"]
    wire.request("POST", "/api/jobs", *headers, body=body)
    assert wire.status() == status
    assert wire.is_closed()


def test_51_no_length_is_no_body(client: Client, connect: Connect) -> None:
    wire = connect(client)
    wire.request("POST", "/api/jobs", "Content-Type: application/json")
    head, body = wire.answer()
    assert head.startswith("HTTP/1.1 400") and b"not valid JSON" in body


def test_51_more_than_the_length_is_not_part_of_it(client: Client, connect: Connect) -> None:
    wire = connect(client)
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
        ("NaN is not JSON", '{"task": "echo", "args": [NaN]}'),
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
        ("is not a key of a job; there are", '{"task": "add", "arg": [2, 3]}'),
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


def test_52_a_body_that_is_too_large_is_refused_unread(client: Client, connect: Connect) -> None:
    wire = connect(client)
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
def test_53_what_is_no_http_ends_the_connection(
    client: Client, connect: Connect, data: bytes
) -> None:
    wire = connect(client)
    wire.send(data.replace(b"{host}", wire.host.encode()))
    head, _ = wire.answer()
    assert head.split()[1] in ("400", "431", "505")
    assert all(header in head for header in ("nosniff", "default-src 'none'", "no-store"))
    assert wire.is_closed()
    assert still_serves(client)
