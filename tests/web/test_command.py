"""`jobqueue web`: real processes, real signals; and what it says where it cannot be."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jobqueue.store.database import Store
from jobqueue.store.redactions import read_redactions

from tests.cli.conftest import Cli, Process, make_app, own_folder, spawn  # noqa: F401
from tests.web.conftest import Client

# Processes and signals are the same on both databases.
pytestmark = [pytest.mark.slow, pytest.mark.databases("sqlite")]
ROOT = Path(__file__).parents[2]

APP = """
import pathlib, threading
from jobqueue import JobQueue

jobs = JobQueue()

@jobs.task
def add(x: int, y: int) -> int:
    return x + y

@jobs.task(redact=("token",))
def login(token: str) -> None: ...

@jobs.task
def until(begun: str, file: str) -> str:
    pathlib.Path(begun).touch()
    while not pathlib.Path(file).exists():
        threading.Event().wait(0.01)
    return "done"
"""


class Web:
    """A `jobqueue web` that is running."""

    def __init__(self, process: Process) -> None:
        self.process = process
        assert process.popen.stderr is not None
        self.lines: list[str] = []
        for line in process.popen.stderr:
            self.lines.append(line)
            if found := re.search(r"listening on (\S+)", line):
                self.url = found[1]
                return
        pytest.fail("".join(self.lines))

    def signal(self, number: signal.Signals) -> None:
        self.process.popen.send_signal(number)

    def end(self) -> tuple[int, str]:
        code, _, err = self.process.end()
        return code, "".join(self.lines) + err


@pytest.fixture
def it(url: str, make_app: Callable[..., str]) -> Cli:  # noqa: F811
    cli = Cli(url)
    cli.app = make_app(APP)
    return cli


@pytest.fixture
def web(it: Cli, spawn: Callable[..., Process]) -> Callable[..., Web]:  # noqa: F811
    """Starts the command on a free port, and waits until it listens."""

    def start(*args: object, **env: str) -> Web:
        environment = {"JOBQUEUE_URL": it.url, "JOBQUEUE_APP": it.app, **env}
        return Web(spawn("web", "--port", 0, *args, env=environment))

    return start


@pytest.mark.databases("sqlite", "postgres")
def test_it_serves_until_a_signal_and_exits_with_0(web: Callable[..., Web]) -> None:
    running = web()
    with Client(base_url=running.url) as client:
        assert client.enqueue(2, 3).status_code == 202
        running.signal(signal.SIGTERM)
        code, err = running.end()
    assert code == 0
    assert "SIGTERM: stopping" in err and "Traceback" not in err


def test_a_stop_lets_the_running_job_end(
    web: Callable[..., Web], it: Cli, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """Accept nothing, answer who waits, drain the worker, exit with 0."""
    running = web("--with-worker", "--concurrency", 2)
    begun, file = tmp_path / "begun", tmp_path / "go"
    answers: list[dict[str, Any]] = []
    with Client(base_url=running.url, timeout=60) as client:
        id_ = client.id(str(begun), str(file), task="until")
        wait_until(begun.exists)
        asking = threading.Thread(
            target=lambda: answers.append(client.get(f"/api/jobs/{id_}?wait=60").json())
        )
        asking.start()
        running.signal(signal.SIGTERM)
        asking.join(60)  # Told how it stands, long before the job ends.
        assert answers[0]["state"] == "running"
        wait_until(lambda: refuses(running.url))
        assert running.process.popen.poll() is None
        file.touch()
        code, err = running.end()
    assert code == 0, err
    assert it.json("show", id_)["result"] == "done"
    assert it.json("workers") == []


def refuses(url: str) -> bool:
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return True
    return False


def test_a_second_signal_ends_it_at_once(
    web: Callable[..., Web], it: Cli, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    running = web("--with-worker")
    begun = tmp_path / "begun"
    with Client(base_url=running.url, timeout=60) as client:
        id_ = client.id(str(begun), str(tmp_path / "never"), task="until")
        wait_until(begun.exists)
        running.signal(signal.SIGINT)
        wait_until(lambda: refuses(running.url))
        running.signal(signal.SIGINT)
        code, err = running.end()
    assert code == 1, err
    assert "Traceback" not in err
    assert it.json("show", id_)["state"] in ("available", "running")


def test_the_token_comes_from_the_environment_and_is_never_shown(web: Callable[..., Web]) -> None:
    token = "sentinel-of-a-token"
    running = web("--debug", JOBQUEUE_TOKEN=token)
    with Client(base_url=running.url) as client:
        assert client.get("/api/jobs").status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert client.get("/api/jobs", headers=headers).status_code == 200
    running.signal(signal.SIGTERM)
    code, err = running.end()
    assert code == 0 and token not in err


def test_read_only_other_hosts_and_sites_and_a_line_each(web: Callable[..., Web]) -> None:
    site = "https://app.example"
    options = ["--allow-host", "jobs.example", "--allow-origin", site, "--access-log"]
    running = web("--read-only", *options)
    with Client(base_url=running.url) as client:
        assert client.enqueue(2, 3).status_code == 403
        assert client.get("/api/jobs", headers={"Host": "jobs.example"}).status_code == 200
        shared = client.get("/api/jobs", headers={"Origin": site})
        assert shared.headers["access-control-allow-origin"] == site
    running.signal(signal.SIGTERM)
    code, err = running.end()
    assert code == 0 and "web.access: 127.0.0.1 POST /api/jobs: 403, " in err


def test_json_says_where_it_listens(it: Cli, spawn: Callable[..., Process]) -> None:  # noqa: F811
    environment = {"JOBQUEUE_URL": it.url, "JOBQUEUE_APP": it.app}
    process = spawn("web", "--json", "--port", 0, env=environment)
    assert process.popen.stdout is not None
    url = json.loads(process.popen.stdout.readline())["url"]
    with Client(base_url=url) as client:
        assert client.get("/healthz").status_code == 200
    process.popen.send_signal(signal.SIGTERM)
    assert process.end()[:2] == (0, "")


def test_it_writes_down_what_its_app_hides_unless_it_is_read_only(
    it: Cli, web: Callable[..., Web]
) -> None:
    store = Store(it.url)
    store.require_schema()
    for args, written in ((("--read-only",), set()), ((), {"login"})):
        running = web(*args)
        running.signal(signal.SIGTERM)
        assert running.end()[0] == 0
        assert set(read_redactions(store)) == written
    store.close()


# What it refuses


@pytest.mark.parametrize(
    ("code", "args", "message"),
    [
        (2, ["--host", "0.0.0.0"], "0.0.0.0 can be reached from elsewhere, so a token is needed"),
        (2, ["--host", "::"], "a token is needed"),
        (2, ["--host", "nowhere.invalid"], "host: 'nowhere.invalid' is not an address"),
        (2, ["--port", "99999"], "port: 99999 is not a whole number between 0 and 65535"),
        (2, ["--port", "http"], "port: "),
        (2, ["--port", "-1"], "port: "),
        (2, ["--token", ""], "token: it is empty"),
        (2, ["--token", "a b"], "token: give visible ASCII"),
        (2, ["--allow-host", "http://a/"], "host: 'http://a/' is not a host name"),
        (2, ["--allow-origin", "*"], "origin: '*' is not a site such as https://app.example"),
        (2, ["--concurrency", "2"], "concurrency: it needs --with-worker"),
        (2, ["--with-worker", "--concurrency", "0"], "concurrency: "),
    ],
)
def test_it_refuses_to_start(it: Cli, code: int, args: list[str], message: str) -> None:
    assert message in it.refused(code, "web", *args)


def test_a_worker_needs_an_app(bare: Cli) -> None:
    assert "no app is named" in bare.refused(2, "web", "--with-worker")


@pytest.fixture
def bare(url: str) -> Cli:
    return Cli(url)


def test_a_port_that_is_taken(it: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = it.refused(1, "web", "--port", port)
    assert f"127.0.0.1:{port}: cannot listen here: Address already in use" in line


@pytest.mark.databases("postgres")
def test_without_the_schema_it_does_not_start(empty_url: str) -> None:
    assert "jobqueue db upgrade" in Cli(empty_url).refused(1, "web")


# The extra


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_importing_jobqueue_imports_no_extra() -> None:
    done = run(
        "import sys, jobqueue, jobqueue.cli.main\n"
        "extras = {'starlette', 'uvicorn', 'anyio', 'h11', 'prometheus_client', 'jinja2', 'textual'}\n"
        "extras |= {'watchfiles', 'psycopg', 'opentelemetry', 'sentry_sdk'}\n"
        "print(sorted(extras & set(sys.modules)))"
    )
    assert done.stdout == "[]\n", done.stderr


def test_without_the_extra_it_says_what_to_install() -> None:
    packages = ("starlette", "uvicorn", "h11", "prometheus_client")
    done = run(
        "import os, sys\n"
        "from jobqueue.cli.main import cli\n"
        f"for missing in {packages}:\n"
        "    if os.fork() == 0:\n"
        "        sys.modules[missing] = None\n"
        "        cli.main(['web'])\n"
        "    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)\n"
    )
    assert done.stdout == "2\n" * len(packages), done.stderr
    assert done.stderr == len(packages) * (
        "error: the dashboard and the HTTP API need the extra `web`: pip install 'jobqueue[web]'\n"
    )
