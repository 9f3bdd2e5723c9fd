"""The services of deploy/ are run as their files say, but for the containers: on a PostgreSQL, as processes."""

import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobqueue import JobQueue
from tests.cli.conftest import Process
from tests.deploy.files import COMPOSE, DEPLOY, commands

pytestmark = [pytest.mark.slow, pytest.mark.databases("postgres")]

TOKEN = "a-long-random-text"
LISTENS = re.compile(r"(?:answers|listening) on http://[\d.]+:(\d+)")


class Service:
    """A service of the compose file, or with the command of another file, on free ports."""

    def __init__(self, name: str, command: list[str], url: str, folder: Path) -> None:
        given = COMPOSE["services"][name]
        command = [re.sub(r"^(--(?:\w+-)?port)=\d+$", r"\1=0", word) for word in command]
        # One port may serve both, but 0 is two ports.
        command = [word for word in command if not word.startswith("--metrics-port")]
        self._log = folder / f"{len(list(folder.iterdir()))}.log"
        secrets = {"JOBQUEUE_TOKEN": TOKEN} if name == "web" else {}
        env = {**given["environment"], "JOBQUEUE_URL": url, "PGPASSWORD": "", **secrets}
        with self._log.open("w") as log:
            self.process = Process(tuple(command), env, cwd=folder, stderr=log)
        self._healthcheck = given.get("healthcheck", {}).get("test", ())

    def port(self) -> int | None:
        found = LISTENS.search(self._log.read_text())
        return int(found[1]) if found else None

    def check_health(self) -> None:
        """Do what its healthcheck does; raises what fails."""
        exec_, python, option, program = self._healthcheck
        assert (exec_, python, option) == ("CMD", "python", "-c")
        exec(re.sub(r":\d+/", f":{self.port()}/", program))

    def is_stopping(self) -> bool:
        return "SIGTERM: stopping" in self._log.read_text()

    def stop(self) -> None:
        self.process.popen.send_signal(signal.SIGTERM)

    def end(self) -> int:
        code, _, _ = self.process.end()
        assert "Traceback" not in self._log.read_text()
        return code


@pytest.fixture
def start(empty_url: str, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    shutil.copy(DEPLOY / "app.py", tmp_path)
    with ExitStack() as stack:

        def start(name: str, command: list[str] | None = None) -> Service:
            words = COMPOSE["services"][name]["command"] if command is None else command
            service = Service(name, words, empty_url, tmp_path)
            stack.callback(service.process.popen.communicate)
            stack.callback(service.process.popen.kill)
            return service

        yield start


def test_the_services_start_work_and_stop_without_losing_a_job(
    start: Callable[..., Service], empty_url: str, wait_until: Any
) -> None:
    assert start("migrate").end() == 0
    workers = [start("worker"), start("worker", commands()["kubernetes jobqueue-worker"])]
    web = start("web")
    for each in (*workers, web):
        wait_until(each.port)
        each.check_health()

    headers = {"Authorization": f"Bearer {TOKEN}"}
    with (
        JobQueue(empty_url) as jobs,
        httpx.Client(base_url=f"http://127.0.0.1:{web.port()}", timeout=60) as client,
    ):
        assert client.get("/api/jobs").status_code == 401

        def enqueue(task: str, *args: Any) -> int:
            body = {"task": task, "args": list(args)}
            return int(client.post("/api/jobs", json=body, headers=headers).json()["id"])

        def state(id_: int, wait: int = 0) -> str:
            answer = client.get(f"/api/jobs/{id_}", params={"wait": wait}, headers=headers)
            return str(answer.json()["state"])

        assert state(enqueue("send", "ada@example.com"), wait=30) == "succeeded"
        pod = httpx.get(
            f"http://127.0.0.1:{workers[1].port()}/readyz",
            headers={"Host": "10.0.0.7:8082"},
            timeout=60,
        )
        assert pod.status_code == 200

        in_hand = [enqueue("report", 5, 0.1) for _ in range(4)]
        wait_until(lambda: all(state(id_) != "available" for id_ in in_hand))
        workers[0].stop()
        assert workers[0].end() == 0
        with pytest.raises(OSError):
            workers[0].check_health()
        assert [state(id_, wait=30) for id_ in in_hand] == ["succeeded"] * 4

        long = enqueue("report", 1000, 0.1)
        wait_until(lambda: state(long) == "running")
        workers[1].stop()
        wait_until(workers[1].is_stopping)
        workers[1].stop()
        assert workers[1].end() == 1
        record = jobs.get(long).record()
        assert (record.state, record.attempt) == ("available", 0), "given back, not charged"
        web.stop()
        assert web.end() == 0
