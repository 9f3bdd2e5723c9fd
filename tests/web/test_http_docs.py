"""docs/http.md is true: its examples are run in their order, its routes are those of the code."""

import argparse
import json
import re
import shlex
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobqueue import JobQueue
from jobqueue.web import create_app
from jobqueue.web.api.operation import Operation
from jobqueue.web.connections import CONNECTIONS_MAX, REQUEST_TIMEOUT
from jobqueue.web.server import KEEP_ALIVE_TIMEOUT
from tests.pages import ROOT, environment, named_by, outside, text_of
from tests.web.conftest import JSON, Client, Serve, working

HTTP = ROOT / "docs" / "http.md"
PAGE = text_of(HTTP)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def table(operations: Iterable[Operation]) -> str:
    return "".join(
        f"| `{each.method} {each.path}` | {', '.join(map(str, each.statuses))} | {each.summary} |\n"
        for each in operations
    )


def is_part(said: Any, got: Any) -> bool:
    """All that the page shows is there; objects may have more."""
    if isinstance(said, dict):
        return isinstance(got, dict) and all(
            key in got and is_part(value, got[key]) for key, value in said.items()
        )
    if isinstance(said, list):
        return isinstance(got, list) and len(said) == len(got) and all(map(is_part, said, got))
    return bool(said == got)


def test_the_examples_answer_as_the_page_says(url: str) -> None:
    from jobqueue.web import Server

    with JobQueue(url) as jobs:

        @jobs.task
        def add(x: int, y: int) -> int:
            return x + y

        with (
            Server(create_app(jobs), port=0, grace=1) as server,
            Client(base_url=server.url, timeout=60) as client,
        ):
            for example in blocks("http"):
                request, answer = example.split("\n\n")
                line, _, body = request.partition("\n")
                method, path = line.split()
                status, _, said = answer.partition("\n")
                headers = JSON if body else {}
                if "wait=" in path:
                    with working(jobs):
                        response = client.request(method, path, content=body, headers=headers)
                else:
                    response = client.request(method, path, content=body, headers=headers)
                assert response.status_code == int(status), (line, response.text)
                assert is_part(json.loads(said), response.json()), (line, response.text)
            for line in re.findall(r"^\$ curl (.+)$", PAGE, re.MULTILINE):
                response = as_curl(client, shlex.split(line))
                assert response.is_success, (line, response.text)


def as_curl(client: Client, words: list[str]) -> httpx.Response:
    """Send what curl would send for these arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="body")
    given = parser.parse_args(words)
    path = given.url.removeprefix("localhost:8081")
    kind = {"Content-Type": "application/x-www-form-urlencoded"} if given.body else {}
    headers = kind | dict(each.split(": ") for each in given.headers)
    method = given.method or ("POST" if given.body else "GET")
    return client.request(method, path, content=given.body, headers=headers)


def test_the_table_of_routes_is_that_of_the_code(jobs: JobQueue, rewrite_golden: bool) -> None:
    """pytest tests/web/test_http_docs.py --rewrite-golden writes it anew."""
    written = table(create_app(jobs)._api.operations)
    head = "| route | answers | with |\n|---|---|---|\n"
    before, _, rest = PAGE.partition(head)
    documented = "".join(re.match(r"(?:\|.*\n)*", rest)[0])
    if rewrite_golden:
        HTTP.write_text(before + head + written + rest.removeprefix(documented), "utf-8")
    assert rewrite_golden or documented == written


def test_the_limits_are_those_of_the_code() -> None:
    assert f"{REQUEST_TIMEOUT:g} s for a whole request" in PAGE
    assert f"{KEEP_ALIVE_TIMEOUT} s between two requests" in PAGE
    assert f"| connections | {CONNECTIONS_MAX};" in PAGE


def test_the_program_serves_and_works(tmp_path: Path) -> None:
    program = "\n".join(blocks("python")).replace("port=8081", "port=0, listening=print")
    (tmp_path / "app.py").write_text(program, "utf-8")
    python = environment(tmp_path / "venv", named_by(HTTP))
    with subprocess.Popen(
        [python, "-X", "dev", "-W", "error", "-u", "app.py"],
        cwd=tmp_path,
        env=outside(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            with Client(base_url=process.stdout.readline().strip(), timeout=60) as client:
                id_ = client.id(2, 3)
                assert client.get(f"/api/jobs/{id_}?wait=30").json()["result"] == 5
        finally:
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("said", "got"), [({"a": 1}, {"b": 1}), ([1], [1, 2]), (1, 2), ({"a": 1}, [1])]
)
def test_what_the_page_does_not_say_is_seen(said: Any, got: Any) -> None:
    assert not is_part(said, got)
