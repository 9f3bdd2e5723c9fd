"""`worker --health-port` and `--metrics-port`: what they answer, to whom, and however slow others are."""

import http.client
import json
import re
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

import jobqueue
from jobqueue import JobQueue
from jobqueue.cli.commands.probe_options import bound
from jobqueue.errors import ExtraMissing
from jobqueue.worker.observe import probe_server
from jobqueue.worker.exit_conditions import ExitConditions
from jobqueue.worker.observe.probe_server import Probes, health_pages
from tests.cli.conftest import Cli, Process, Spawn

APP = """
import pathlib, time
from jobqueue import JobQueue

jobs = JobQueue()

@jobs.task(max_attempts=1)
def hold(name: str) -> None:
    pathlib.Path(name).touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.02)

@jobs.task(max_attempts=1)
def fail() -> None:
    raise ValueError
"""


def ask(port: int, path: str, host: str = "127.0.0.1", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def begin(it: Cli, spawn: Spawn, tmp_path: Path, wait_until: Any) -> Callable[..., Any]:
    """Starts a worker with probes on free ports; returns it, and a function that gives the ports."""

    def begin(*options: object, ports: int = 2) -> tuple[Process, list[int], Callable[[], str]]:
        file = tmp_path / "log"
        env = it.env
        with file.open("w") as log:
            process = spawn("worker", *options, env=env, stderr=log)

        def found() -> list[int]:
            said = re.findall(r"answers on http://127.0.0.1:(\d+)/", file.read_text())
            return [int(port) for port in said] if len(said) == ports else []

        return process, wait_until(found), file.read_text

    return begin


def samples(text: str) -> dict[str, float]:
    return {
        match[1]: float(match[3])
        for match in re.finditer(r"^jobqueue_worker_(\w+)\{worker=(\".*\")\} (\S+)$", text, re.M)
    }


def test_a_worker_tells_its_health_and_its_counters(
    it: Cli, begin: Any, tmp_path: Path, wait_until: Any
) -> None:
    it.id("fail")
    options = ("--health-port", 0, "--metrics-port", 0, "-c", 3, "--name", 'a"b\\c')
    process, (health, metrics), log = begin(*options)
    it.id("hold", "begun")
    wait_until((tmp_path / "begun").exists)
    good = {"ok": True, "alive": True, "lease": True, "database": True, "working": True}
    good |= {"reason": None}
    for path in ("/healthz", "/readyz", "/readyz?verbose"):
        status, text = ask(health, path)
        assert (status, json.loads(text)) == (200, good)

    def counted() -> bool:
        return samples(ask(metrics, "/metrics")[1])["processed_total"] == 1

    wait_until(counted)
    status, text = ask(metrics, "/metrics")
    found = samples(text)
    assert status == 200
    assert found.pop("busy_seconds_total") > 0
    assert found == {
        "slots": 3,
        "busy": 1,
        "held": 1,
        "processed_total": 1,
        "errored_total": 1,
        "lease": 1,
    }
    assert 'jobqueue_worker_slots{worker="a\\"b\\\\c"} 3.0' in text
    assert text.count("# TYPE jobqueue_worker_") == text.count("# HELP jobqueue_worker_") == 7
    assert ask(health, "/metrics")[0] == ask(metrics, "/healthz")[0] == 404

    process.popen.send_signal(signal.SIGTERM)  # It is alive, but takes no jobs any more.
    wait_until(lambda: ask(health, "/readyz")[0] == 503)
    assert ask(health, "/healthz")[0] == 200
    assert json.loads(ask(health, "/readyz")[1])["working"] is False
    (tmp_path / "go").touch()
    assert process.end()[0] == 0, log()
    assert log().count("Traceback") == 1, "of the attempt that errored"


@pytest.mark.databases("sqlite")
def test_one_port_may_serve_both_and_each_process_has_its_own(
    it: Cli, begin: Any, free_ports: Any
) -> None:
    port = free_ports(2)
    options = ("--processes", 2, "--health-port", port, "--metrics-port", port)
    process, ports, _ = begin(*options)
    assert sorted(ports) == [port, port + 1]
    names = set()
    for each in ports:
        assert ask(each, "/healthz")[0] == 200
        names.add(ask(each, "/metrics")[1].partition('worker="')[2].partition('"')[0])
    assert len(names) == 2
    process.popen.send_signal(signal.SIGTERM)
    assert process.end()[0] == 0


@pytest.fixture
def free_ports() -> Callable[[int], int]:
    """The first of so many ports in a row that nobody has."""

    def find(count: int) -> int:
        for first in range(21000, 29000, 7):
            with ExitStack() as stack:
                try:
                    for port in range(first, first + count):
                        stack.enter_context(socket.create_server(("127.0.0.1", port)))
                except OSError:
                    continue
                return first
        raise AssertionError("no ports are free")

    return find


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("more", [(), ("--processes", 2)])
def test_a_port_that_is_taken_is_said_before_the_worker_begins(
    it: Cli, spawn: Spawn, more: tuple[object, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = it.env
        code, _, err = spawn("worker", "--health-port", port, *more, env=env).end()
    assert code == 1
    assert err.count(f"cannot listen on port {port} of 127.0.0.1: Address already in use") == 1
    assert "began, slots" not in err


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    "options",
    [
        ("--health-port", "-1"),
        ("--health-port", "http"),
        ("--metrics-port", "65536"),
        ("--metrics-port", "65535", "--processes", "2"),
        ("--health-port", "0", "--probe-host", ""),
        ("--health-port", "0", "--probe-host", "http://0.0.0.0"),
        ("--health-port", "0", "--probe-host", "ü" * 70, "--processes", "2"),
        ("--probe-host", "0.0.0.0"),
    ],
)
def test_a_port_out_of_range_and_a_wrong_address_are_refused(
    it: Cli, options: tuple[str, ...]
) -> None:
    said = "_port|probe_host: (give an address|.* is not an address of|it needs --health-port)"
    assert re.search(said, it.refused(2, "worker", *options))


def test_without_its_extra_the_metrics_port_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "jobqueue.prometheus", raising=False)
    monkeypatch.delattr(jobqueue, "prometheus", raising=False)
    with pytest.raises(ExtraMissing, match=r"pip install 'jobqueue\[prometheus\]'"):
        bound({"metrics_port": 0}, JobQueue("sqlite:///none.db").worker()).__enter__()


# The server, by hand


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Probes]:
    monkeypatch.setattr(probe_server._Handler, "timeout", probe_server._Handler.timeout / 10)
    server = Probes(0, {"/page": lambda: (200, "text/plain", "here\n")})
    server.serve()
    yield server
    server.close()


def test_it_listens_on_the_loopback_interface_alone(server: Probes) -> None:
    assert server._server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "to", "name", "status"),
    [
        ("0.0.0.0", "127.0.0.1", "10.0.0.7:8082", 200),
        ("::", "127.0.0.1", "worker.example", 200),
        ("::1", "::1", "[::1]:8082", 200),
        ("::1", "::1", "evil.example", 403),
        ("localhost", "localhost", "evil.example", 403),
    ],
)
def test_on_an_address_that_others_reach_it_answers_to_any_name(
    host: str, to: str, name: str, status: int
) -> None:
    server = Probes(0, {"/page": lambda: (200, "text/plain", "here\n")}, host)
    server.serve()
    try:
        assert ask(server.port, "/page", to, Host=name)[0] == status
    finally:
        server.close()


def test_silent_clients_hold_up_nobody_and_are_cut_off(
    server: Probes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:

        def silent() -> socket.socket:
            made = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            return stack.enter_context(made)

        with monkeypatch.context() as patient:  # None of these is cut off meanwhile.
            patient.setattr(probe_server._Handler, "timeout", 3600)
            [silent() for _ in range(50)][0].send(b"GET /page")
            assert ask(server.port, "/page") == (200, "here\n")
        clients = [silent() for _ in range(10)]
        clients[0].send(b"GET /page")
        assert [client.recv(1) for client in clients] == [b""] * len(clients)


@pytest.mark.parametrize(
    "said",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\xff\x00\xfe\r\n\r\n",
        b"GET /page HTTP/9.9\r\n\r\n",
        b"GET " + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /page HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"POST /page HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"DELETE /page HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_request_is_answered_with_an_error_or_not_at_all(
    server: Probes, said: bytes, capfd: Any
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(said)
        try:
            heard = client.makefile("rb").read()
        except ConnectionResetError:
            heard = b""
    assert b"here" not in heard
    assert ask(server.port, "/page") == (200, "here\n")
    assert capfd.readouterr().err == ""


def test_a_client_that_leaves_early_is_no_news(server: Probes, capfd: Any) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.sendall(b"GET /page HTTP/1.1\r\n\r\n")
    assert ask(server.port, "/page")[0] == 200
    assert capfd.readouterr().err == ""


def test_an_error_of_a_page_is_logged(server: Probes, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> tuple[int, str, str]:
        raise ZeroDivisionError("a bug")

    server._server.pages = {"/broken": broken}
    with pytest.raises(http.client.HTTPException):
        ask(server.port, "/broken")
    [record] = caplog.records
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError


def test_a_page_in_a_browser_that_came_under_another_name_is_kept_out(server: Probes) -> None:
    assert ask(server.port, "/page", Host="evil.example")[0] == 403
    assert ask(server.port, "/page", Host=f"localhost:{server.port}")[0] == 200


class WorkerHealth:
    """A worker in whatever state."""

    name = "w"

    def __init__(self, **wrong: bool) -> None:
        self._health = probe_server.Health(
            **{"alive": True, "lease": True, "database": True, "working": True, **wrong}
        )

    def check(self) -> probe_server.Health:
        return self._health

    def why_not(self, health: probe_server.Health) -> str:
        return next(name for name, is_so in health._asdict().items() if not is_so)


@pytest.mark.parametrize("wrong", ["alive", "lease", "database", "working"])
def test_whatever_is_wrong_makes_it_not_ready_and_only_its_own_failure_not_healthy(
    wrong: str,
) -> None:
    pages = health_pages(lambda: WorkerHealth(**{wrong: False}))
    assert pages["/readyz"]()[0] == 503
    status, _, text = pages["/healthz"]()
    assert status == (503 if wrong == "alive" else 200)
    assert json.loads(text)[wrong] is False
    assert json.loads(pages["/readyz"]()[2])["reason"] == wrong


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("happens", ["moved", "replaced"])
def test_a_worker_whose_file_is_elsewhere_is_not_ready_and_says_why(url: str, happens: str) -> None:
    file = Path(make_url(url).database or "")
    with JobQueue(url) as jobs, jobs.worker(lease=600) as worker:
        pages = health_pages(lambda: worker.health)
        status, _, text = pages["/readyz"]()
        assert (status, json.loads(text)["reason"]) == (200, None)
        moved = file.rename(f"{file}.moved")
        if happens == "replaced":
            shutil.copy(moved, file)
        status, _, text = pages["/readyz"]()
        assert (status, json.loads(text)["database"]) == (503, False)
        assert json.loads(text)["reason"].startswith(f"the database file {file} was deleted or rep")


def test_the_health_is_that_of_the_worker(url: str, wait_until: Any) -> None:
    """A database that is gone, and a lease that has run out, as a worker itself sees them."""
    with JobQueue(url) as jobs, jobs.worker(lease=1, poll=0.05) as worker:
        assert all(worker.health.check())
        store = worker._assembly.store
        store.read, store.write = _gone, _gone
        worker._parts.heartbeat.tick = _gone
        wait_until(lambda: not worker.health.check().database)
        why_not = worker.health.why_not(worker.health.check())
        assert why_not is not None
        assert why_not.startswith("these services fail, see the log: ")
        wait_until(lambda: not worker.health.check().lease)
        assert worker.health.check().alive
        del store.read, store.write, worker._parts.heartbeat.tick
        wait_until(lambda: all(worker.health.check()))
        # They may go on again between the two questions.
        late = worker.health.why_not(probe_server.Health(True, True, False, True))
        assert late == "these services fail, see the log: none any more"


def _gone(*_: object, **__: object) -> Any:
    raise ConnectionError("gone")


def test_a_worker_that_has_given_up_is_not_alive() -> None:
    stop = ExitConditions()
    stop.fail("2 handlers ignored their timeouts")
    assert stop.failure is not None
    assert stop.ended.is_set()
