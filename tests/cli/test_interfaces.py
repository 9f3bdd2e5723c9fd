"""What an app declares holds at every interface: the command line, HTTP, a worker, Python."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobqueue import JobQueue, QueueFull
from jobqueue.cli.app_loader import load
from jobqueue.web import Server, create_app
from tests.cli.conftest import Cli
from tests.web.conftest import Client

BOUNDED = """
from jobqueue import JobQueue
jobs = JobQueue()
small = jobs.queue("small", max_pending=3, when_full="reject")

@jobs.task(queue="small")
def tiny() -> None: ...
"""


@pytest.fixture
def bounded(bare: Cli, make_app: Callable[..., str]) -> Cli:
    """The commands on a fresh database, with an app that bounds a queue."""
    bare.app = make_app(BOUNDED)
    return bare


def test_a_bound_holds_from_the_first_command_that_enqueues(bounded: Cli) -> None:
    codes = [bounded("enqueue", "tiny").exit_code for _ in range(5)]
    assert codes == [0, 0, 0, 1, 1]
    assert len(bounded.json("list")) == 3


def test_a_bound_holds_for_command_lines_and_for_files_of_jobs(bounded: Cli) -> None:
    bounded.ok("exec", "--queue", "small", "--", "true")
    line = json.dumps({"task": "tiny"})
    full = bounded.refused(1, "enqueue", "--from", "-", input=f"{line}\n" * 4)
    assert "never fit in; nothing was enqueued" in full
    bounded.ok("enqueue", "--from", "-", input=f"{line}\n" * 2)
    assert "'small' is full" in bounded.refused(1, "exec", "--queue", "small", "--", "true")


def test_a_worker_that_was_started_first_tells_the_bound_to_all(bounded: Cli) -> None:
    """Those that know no app, too."""
    bounded.drain()
    bounded.app = None
    codes = [bounded("enqueue", "tiny", "--queue", "small").exit_code for _ in range(4)]
    assert codes == [0, 0, 0, 1]


def test_a_bound_holds_over_http_and_in_python_from_the_first_job_on(
    bounded: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bounded.url is not None and bounded.app is not None
    monkeypatch.setenv("JOBQUEUE_URL", bounded.url)
    with (
        load(bounded.app) as jobs,
        Server(create_app(jobs), port=0) as server,
        Client(base_url=server.url) as client,
    ):
        sent = [client.enqueue(task="tiny") for _ in range(4)]
        assert [answer.status_code for answer in sent] == [202, 202, 202, 503]
        assert "Retry-After" in sent[-1].headers
        with pytest.raises(QueueFull):
            jobs.registry["tiny"].enqueue()


def test_a_bound_holds_on_the_database_that_the_command_names(
    bounded: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bounded.url is not None and bounded.app is not None
    app = tmp_path / f"{bounded.app.partition(':')[0]}.py"
    app.write_text(BOUNDED.replace("JobQueue()", 'JobQueue("sqlite:///own.db")'))
    codes = [bounded("enqueue", "tiny", "--url", bounded.url).exit_code for _ in range(4)]
    assert codes == [0, 0, 0, 1]
    assert not (tmp_path / "own.db").exists()


HOOKED = """
from jobqueue import EnqueueRefused, JobQueue
jobs = JobQueue()

@jobs.task
def work(x: int) -> None: ...

def tenants_only(call, send):
    if "tenant" not in call.headers and call.task.name == "work":
        raise EnqueueRefused("a job needs the header tenant")
    return send(call.with_headers({"hooked": "yes"}))

jobs.use(enqueue=tenants_only)
"""


def test_a_hook_at_the_enqueue_sees_the_calls_of_every_interface(
    bare: Cli, make_app: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare.app = make_app(HOOKED)
    assert bare.url is not None
    monkeypatch.setenv("JOBQUEUE_URL", bare.url)
    headers = {"tenant": "7", "trace": "a=b"}
    good = {"task": "work", "args": [1], "headers": headers}
    bad = {"task": "work", "args": [1]}
    options = ("--header", "tenant=7", "--header", "trace=a=b")

    bare.ok("enqueue", "work", "1", *options)
    bare.ok("enqueue", "--from", "-", input=json.dumps(good))
    bare.ok("exec", *options, "--", "true")
    needs = "a job needs the header tenant"
    assert needs in bare.refused(2, "enqueue", "work", "1")
    lines = f"{json.dumps(good)}\n{json.dumps(bad)}"
    assert f"{needs}; nothing was enqueued" in bare.refused(
        2, "enqueue", "--from", "-", input=lines
    )
    with (
        load(bare.app) as jobs,
        Server(create_app(jobs), port=0) as server,
        Client(base_url=server.url) as client,
    ):
        assert client.post("/api/jobs", json=good).status_code == 202
        assert client.post("/api/jobs", json=[good, good]).status_code == 202
        for refused in (bad, [good, bad]):
            answer = client.post("/api/jobs", json=refused)
            assert (answer.status_code, answer.json()["error"]["message"]) == (400, needs)
        jobs.registry["work"].options(headers=headers).enqueue(1)
    assert [job["headers"] for job in bare.json("list")] == [headers | {"hooked": "yes"}] * 7
    assert "headers     tenant=7, trace=a=b, hooked=yes" in bare.ok("show", "1")


def test_a_concurrency_key_is_given_at_every_interface(
    bare: Cli, make_app: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare.app = make_app(HOOKED.partition("def tenants_only")[0])
    assert bare.url is not None
    monkeypatch.setenv("JOBQUEUE_URL", bare.url)
    options = {"concurrency_key": "k", "concurrency_limit": 2, "strict": True, "weight": 2.5}
    words = ("--concurrency-key=k", "--concurrency-limit=2", "--strict", "--weight=2.5")
    line = {"task": "work", "args": [1], **options}

    bare.ok("enqueue", "work", "1", *words)
    bare.ok("enqueue", "--from", "-", input=json.dumps(line))
    bare.ok("exec", *words, "--", "true")
    with (
        load(bare.app) as jobs,
        Server(create_app(jobs), port=0) as server,
        Client(base_url=server.url) as client,
    ):
        assert client.post("/api/jobs", json=line).json()["lane"] == "k"
        assert client.post("/api/jobs", json=[line, line]).status_code == 202
        jobs.registry["work"].options(**options).enqueue(1)  # type: ignore[arg-type]
        with jobs.store.read() as connection:
            columns = "lane, lane_limit, lane_strict, lane_weight"
            rows = connection.exec_driver_sql(f"SELECT {columns} FROM jobqueue_jobs")
            assert [tuple(row) for row in rows] == [("k", 2, 1, 2.5)] * 7
    assert "lane        k" in bare.ok("show", "1")


def test_a_bound_is_declared_anew_where_a_queue_is_used_again(url: str) -> None:
    """After `close()` another database may be there."""
    with JobQueue(url) as jobs:

        @jobs.task(queue=jobs.queue("small", max_pending=1, when_full="reject"))
        def tiny() -> None: ...

        job = tiny.enqueue()
        jobs.close()
        with jobs.store.write() as connection:
            connection.exec_driver_sql("DELETE FROM jobqueue_queues")
        with pytest.raises(QueueFull):
            tiny.enqueue()
        assert job.state == "available"
