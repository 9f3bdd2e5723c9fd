"""Rows 57 to 64 of the catalogue of bad input: batches, options, handlers and settings; each is refused in its way, and nothing is enqueued by it."""

import json
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.errors import InvalidOption
from jobqueue.web import Server, create_app
from tests.web.bad_requests.conftest import BODY, HTTP_ONLY, JOB, TOKEN
from tests.web.conftest import Client, working

# 57: batches


@HTTP_ONLY
def test_57_a_batch_of_too_many(client: Client) -> None:
    error = client.refused(413, "POST", "/api/jobs", json=[JOB] * 10_001)
    assert (error["field"], error["value"]) == ("body", 10_001)


@HTTP_ONLY
def test_57_an_empty_batch(client: Client) -> None:
    assert "empty" in client.refused(400, "POST", "/api/jobs", json=[])["message"]


@HTTP_ONLY
def test_57_right_and_wrong_ones(client: Client) -> None:
    lines: list[Any] = [JOB, 5, {"task": "no"}, [], JOB, {"task": "add", "args": [1, 2], "a": 1}]
    response = client.post("/api/jobs", json=lines)
    assert response.status_code == 400
    assert [error["index"] for error in response.json()["errors"]] == [1, 2, 3, 5]
    assert response.json()["error"]["message"].endswith("; nothing was enqueued")


@HTTP_ONLY
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


# 59: tags; 62: timeouts; 22 to 28: the other options, by the one rule for all interfaces


@HTTP_ONLY
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
        *(("expires", {"expires": value}) for value in (0, -1, "soon", [], True)),
        ("on_conflict", {"on_conflict": "drop", "unique_key": "k"}),
        ("on_conflict", {"on_conflict": "replace"}),
        ("debounce", {"debounce": 5}),
        ("debounce", {"debounce": 5, "at": "2099-01-01T00:00Z", "unique_key": "k"}),
        ("max_wait", {"debounce": 5, "max_wait": 4, "unique_key": "k"}),
        ("max_wait", {"max_wait": 4, "unique_key": "k"}),
        ("rerun", {"rerun": True}),
        ("rerun", {"rerun": 1, "unique_key": "k"}),
        ("headers", {"headers": {"a": "x" * 5000}}),
        ("headers", {"headers": {"a": 1}}),
        ("headers", {"headers": "a=b"}),
        ("headers", {"headers": None}),
        ("concurrency_key", {"concurrency_key": "k" * 10_000}),
        ("concurrency_limit", {"concurrency_key": "k", "concurrency_limit": -1}),
        ("strict", {"strict": True}),
        ("strict", {"concurrency_key": "k", "strict": 1}),
        ("weight", {"concurrency_key": "k", "weight": 0}),
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


@HTTP_ONLY
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


@HTTP_ONLY
def test_64_beyond_loopback_a_token_is_needed(jobs: JobQueue) -> None:
    with pytest.raises(InvalidOption, match="a token is needed"):
        Server(create_app(jobs), "0.0.0.0", 0)
    Server(create_app(jobs, token=TOKEN), "0.0.0.0", 0)


@HTTP_ONLY
def test_64_without_a_token_not_any_name_is_served(jobs: JobQueue) -> None:
    with pytest.raises(InvalidOption, match="without a token, name those"):
        create_app(jobs, hosts=None)
    create_app(jobs, hosts=None, token=TOKEN)


@HTTP_ONLY
@pytest.mark.parametrize("port", [-1, 65536])
def test_64_a_port_that_is_none(jobs: JobQueue, port: int) -> None:
    with pytest.raises(InvalidOption, match="port: "):
        Server(create_app(jobs), port=port)


@HTTP_ONLY
@pytest.mark.parametrize("host", ["nowhere.invalid", "256.1.1.1", "a b"])
def test_64_a_host_that_is_none(jobs: JobQueue, host: str) -> None:
    with pytest.raises(InvalidOption, match="host: "):
        Server(create_app(jobs), host)


@HTTP_ONLY
@pytest.mark.parametrize("token", ["", "a b", "ü", "a\n"])
def test_64_a_token_that_no_header_can_hold(jobs: JobQueue, token: str) -> None:
    with pytest.raises(InvalidOption, match="token: "):
        create_app(jobs, token=token)
