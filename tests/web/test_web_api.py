"""The routes, on a real server: what they do, and what they answer."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from jobqueue import JobQueue, every
from tests.web.conftest import Client, Serve, working


def rows(jobs: JobQueue) -> int:
    return len(list(jobs.list(limit=None)))


# Enqueue


def test_a_job_is_enqueued_and_answered_with_its_object(client: Client, jobs: JobQueue) -> None:
    response = client.post(
        "/api/jobs",
        json={"task": "add", "args": [2], "kwargs": {"y": 3}, "queue": "mail", "tags": ["a"]},
    )
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/api/jobs/{job['id']}"
    assert job == next(iter(jobs.list())).to_json() | {"created": True}
    assert (job["task"], job["args"], job["kwargs"]) == ("add", [2], {"y": 3})
    assert (job["queue"], job["tags"], job["state"]) == ("mail", ["a"], "available")


def test_every_option_of_a_line_is_taken(client: Client) -> None:
    job = client.enqueue(
        2,
        3,
        priority=-4,
        delay="1h",
        max_attempts=3,
        timeout=30,
        deadline="2h",
        unique_key="k",
        unique_until="deleted",
    ).json()
    assert (job["priority"], job["max_attempts"], job["timeout"]) == (-4, 3, 30.0)
    assert (job["state"], job["unique_key"]) == ("scheduled", "k")
    assert job["deadline_at"] is not None


def test_a_key_that_is_held_gives_the_job_that_is_there(client: Client, jobs: JobQueue) -> None:
    first = client.enqueue(2, 3, unique_key="k").json()
    again = client.enqueue(2, 3, unique_key="k")
    assert again.status_code == 202
    assert (again.json()["id"], again.json()["created"]) == (first["id"], False)
    assert rows(jobs) == 1


def test_a_list_is_a_batch_in_one_transaction(client: Client, jobs: JobQueue) -> None:
    lines = [{"task": "add", "args": [n, 1]} for n in range(50)]
    lines += [{"task": "add", "args": [1, 1], "unique_key": "k"}] * 2
    response = client.post("/api/jobs", json=lines)
    assert response.status_code == 202
    answer = response.json()
    assert (answer["enqueued"], answer["existing"]) == (51, 1)
    assert answer["ids"] == sorted(answer["ids"]) and len(answer["ids"]) == 52
    assert [job.args for job in jobs.list(limit=None)][::-1][3] == '{"args":[3,1],"kwargs":{}}'


def test_a_batch_of_which_one_is_wrong_leaves_nothing(client: Client, jobs: JobQueue) -> None:
    lines: list[Any] = [{"task": "add", "args": [n, 1]} for n in range(5)]
    lines[2] = {"task": "add", "args": ["two", 1]}
    lines[4] = {"task": "add", "args": [1, 1], "queue": "no good"}
    response = client.post("/api/jobs", json=lines)
    assert response.status_code == 400
    assert [error["index"] for error in response.json()["errors"]] == [2, 4]
    error = response.json()["error"]
    assert error["message"].startswith("item 2: add: x: expected int")
    assert (error["field"], error["value"]) == ("x", "two")
    assert rows(jobs) == 0


def test_only_registered_tasks_can_be_enqueued(client: Client, jobs: JobQueue) -> None:
    error = client.refused(400, "POST", "/api/jobs", json={"task": "os.system", "args": ["id"]})
    assert error["field"] == "task" and "no task is named 'os.system'" in error["message"]
    assert rows(jobs) == 0


def test_without_an_app_nothing_can_be_enqueued(url: str, serve: Serve, jobs: JobQueue) -> None:
    client = serve(registry=type(jobs.registry)())
    assert "no tasks" in client.refused(400, "POST", "/api/jobs", json={"task": "add"})["message"]


@pytest.mark.parametrize("when_full", ["wait", "reject"])
def test_a_full_queue_is_503_and_says_when_to_try_again(
    client: Client, jobs: JobQueue, when_full: str
) -> None:
    """Also one that a producer in Python waits for: a client that waits would hold a thread."""
    jobs.queue("thumbs", max_pending=2, when_full=when_full)
    for _ in range(2):
        assert client.enqueue(2, 3, queue="thumbs").status_code == 202
    body = {"task": "add", "args": [2, 3], "queue": "thumbs"}
    for content in (body, [body]):
        response = client.post("/api/jobs", json=content)
        assert response.status_code == 503
        assert 1 <= int(response.headers["retry-after"]) <= 60
        error = response.json()["error"]
        assert "'thumbs' is full" in error["message"]
        assert (error["field"], error["value"]) == ("queue", "thumbs")
    assert client.enqueue(2, 3).status_code == 202
    assert rows(jobs) == 3


# Look


def test_jobs_are_listed_newest_first_and_filtered(client: Client) -> None:
    first = client.id(1, 1, tags=["red"])
    second = client.id(2, 2, queue="mail")
    third = client.id("x", task="echo", delay=60)

    def ids(**query: str) -> list[int]:
        response = client.get("/api/jobs", params=query)
        assert response.status_code == 200, response.text
        return [job["id"] for job in response.json()]

    assert ids() == [third, second, first]
    assert ids(state="scheduled") == [third]
    assert ids(task="add") == [second, first]
    assert ids(queue="mail") == [second]
    assert ids(tag="red") == [first]
    assert ids(limit="2") == [third, second]
    assert ids(since="1h") == [third, second, first]
    assert ids(since="2999-01-01T00:00Z") == ids(queue="none") == []


def test_an_empty_list_says_in_a_header_which_name_nobody_knows(client: Client) -> None:
    client.id(1, 1, tags=["red"], queue="mail")

    def notice(method: str = "GET", **query: str) -> str | None:
        response = client.request(method, "/api/jobs", params=query)
        assert (response.status_code, response.json() if response.content else []) == (200, [])
        return response.headers.get("jobqueue-notice")

    for name, typo, meant in (
        ("task", "ad", "add"),
        ("queue", "mial", "mail"),
        ("tag", "rd", "red"),
    ):
        said = f"{name}: '{typo}' is not known; did you mean {meant}?"
        assert notice(**{name: typo}) == notice("HEAD", **{name: typo}) == said
    assert notice(queue="mail", state="failed") is None
    assert notice(state="failed") is None


def test_a_list_longer_than_a_page_is_whole(client: Client) -> None:
    client.post("/api/jobs", json=[{"task": "add", "args": [n, 0]} for n in range(90)])
    listed = client.get("/api/jobs", params={"limit": 61}).json()
    assert [job["args"][0] for job in listed] == list(range(89, 28, -1))


def test_one_job_is_shown_with_its_attempts(client: Client, jobs: JobQueue) -> None:
    id_ = client.id("no way", task="fail")
    with working(jobs):
        job = client.get(f"/api/jobs/{id_}", params={"wait": 30}).json()
    assert (job["state"], job["error"]["message"]) == ("failed", "no way")
    (attempt,) = job["attempts"]
    assert attempt["outcome"] == "errored"
    assert "ValueError: no way" in attempt["error"]["traceback"]


def test_errors_are_grouped_and_their_jobs_are_listed(client: Client, jobs: JobQueue) -> None:
    assert client.get("/api/errors").json() == []
    failed = [client.id(said, task="fail") for said in ("no way", "never")]
    client.id(1, 1)
    with working(jobs):
        client.get(f"/api/jobs/{failed[1]}", params={"wait": 30})
        client.get(f"/api/jobs/{failed[0]}", params={"wait": 30})
    (group,) = client.get("/api/errors", params={"since": "24h", "task": "fail"}).json()
    assert (group["task"], group["type"], group["attempts"]["24h"]) == ("fail", "ValueError", 2)
    assert [one.to_json() for one in jobs.errors("1h")] == [group]
    for error in (group["id"], group["id"][:4], group["signature"]):
        listed = client.get("/api/jobs", params={"error": error}).json()
        assert [job["id"] for job in listed] == failed[::-1]
        assert [job.id for job in jobs.list(error=error)] == failed[::-1]
    assert client.get("/api/errors", params={"task": "add"}).json() == []
    for path, query in (
        ("errors", {"since": "2h"}),
        ("errors", {"limit": "0"}),
        ("jobs", {"error": "0123456789ab"}),
    ):
        refused = client.get(f"/api/{path}", params=query)
        assert (refused.status_code, [refused.json()["error"]["field"]]) == (400, list(query))


def test_why_answers_as_the_command_line(client: Client, jobs: JobQueue) -> None:
    id_ = client.id(1, 2)
    answer = client.get(f"/api/jobs/{id_}/why")
    assert (answer.status_code, answer.json()) == (200, jobs.get(id_).why().to_json())
    assert answer.json()["code"] == "no_worker"
    assert client.refused(404, "GET", "/api/jobs/99/why")["value"] == 99
    assert client.refused(400, "GET", "/api/jobs/x/why")["field"] == "id"


def test_wait_holds_until_the_job_is_final(client: Client, jobs: JobQueue) -> None:
    id_ = client.id(2, 3)
    states = []

    def ask() -> None:
        states.append(client.get(f"/api/jobs/{id_}", params={"wait": 30}).json())

    asking = threading.Thread(target=ask)
    asking.start()
    with working(jobs):
        asking.join(30)
    assert [(job["state"], job["result"]) for job in states] == [("succeeded", 5)]


def test_wait_ends_with_its_time(client: Client) -> None:
    id_ = client.id(2, 3)
    assert client.get(f"/api/jobs/{id_}", params={"wait": 0.05}).json()["state"] == "available"


def test_waiting_takes_no_thread(client: Client, jobs: JobQueue) -> None:
    """More wait than there are threads, and all others are answered."""
    id_ = client.id(2, 3)
    answers: list[str] = []

    def ask() -> None:
        with Client(base_url=client.base_url, timeout=60) as own:
            answers.append(own.get(f"/api/jobs/{id_}", params={"wait": 30}).json()["state"])

    asking = [threading.Thread(target=ask) for _ in range(20)]
    for thread in asking:
        thread.start()
    assert client.id(3, 4) > id_
    with working(jobs):
        for thread in asking:
            thread.join(30)
    assert answers == ["succeeded"] * 20


def test_a_deleted_job_ends_the_wait(client: Client, jobs: JobQueue) -> None:
    id_ = client.id(2, 3)
    asking = threading.Timer(0.2, jobs.delete, [id_])
    asking.start()
    assert client.get(f"/api/jobs/{id_}", params={"wait": 30}).status_code == 404
    asking.join()


def test_queues_workers_and_stats_answer_as_the_command_line(
    client: Client, jobs: JobQueue, wait_until: Callable[..., Any]
) -> None:
    with working(jobs, name="w1"):
        client.get(f"/api/jobs/{client.id(2, 3)}", params={"wait": 30})
        (queue,) = client.get("/api/queues").json()
        assert (queue["queue"], queue["succeeded"], queue["paused"]) == ("default", 1, False)
        (worker,) = client.get("/api/workers").json()
        assert (worker["worker"], worker["queues"]) == ("w1", None)
        assert worker["started_at"].endswith("+00:00")
        stats = client.get("/api/stats").json()
    assert set(stats) == {
        *("queues", "tasks", "workers", "throughput_per_second", "minutes", "pauses")
    }
    assert stats["workers"] == 1 and stats["tasks"][0]["task"] == "add"


# Change


def test_schedules_are_listed_and_switched(client: Client, jobs: JobQueue) -> None:
    assert client.get("/api/schedules").json() == []
    jobs.schedules.add("sums", jobs.registry["add"].call(1, 2), every(minutes=5))
    (row,) = client.get("/api/schedules").json()
    assert row == jobs.schedules.get("sums").to_json()
    post = lambda verb: client.post(f"/api/schedules/sums/{verb}")
    assert [post("pause").json(), post("pause").json()] == [{"changed": 1}, {"changed": 0}]
    assert jobs.schedules.get("sums").paused_by == "http 127.0.0.1"
    assert post("resume").json() == {"changed": 1}
    ran = post("run")
    assert (ran.status_code, ran.json()["args"], ran.json()["created"]) == (202, [1, 2], True)
    assert ran.headers["Location"] == f"/api/jobs/{ran.json()['id']}"
    assert post("run").json()["id"] == ran.json()["id"]
    assert client.refused(400, "POST", "/api/schedules/sums/reset")["field"] == "name"
    assert post("remove").json() == {"changed": 1}
    for verb in ("pause", "resume", "run", "reset", "remove"):
        error = client.refused(404, "POST", f"/api/schedules/sums/{verb}")
        assert (error["field"], error["value"]) == ("name", "sums")
    client.refused(400, "POST", "/api/schedules/a%20b/pause")
    rows = client.get("/api/log").json()
    assert {(row["actor"], row["target"]["schedule"]) for row in rows} == {
        ("http 127.0.0.1", "sums")
    }
    assert [row["verb"] for row in rows] == ["remove", "run", "resume", "pause"]
    assert client.get("/api/log?since=1h&limit=1").json() == rows[:1]
    for wrong in ("limit=0", "limit=1001", "since=soon"):
        client.refused(400, "GET", f"/api/log?{wrong}")


def test_a_waiting_job_is_changed(client: Client) -> None:
    id_ = client.id(2, 3)
    at = "2100-01-01T00:00:00+00:00"
    new = {"priority": -1, "queue": "mail", "tags": ["eu"], "at": at}
    post = lambda body: client.post(f"/api/jobs/{id_}/update", json=body)
    assert post(new).json() == {"changed": 1, "refused": []}
    job = client.get(f"/api/jobs/{id_}").json()
    assert {name: job[name] for name in ("priority", "queue", "tags")} | {
        "at": job["run_at"]
    } == new
    assert client.get("/api/log").json()[0]["target"] == {"ids": [id_], "set": new}
    for wrong in ({}, [], {"priority": "x"}, {"state": "failed"}, {"at": "soon"}):
        assert post(wrong).status_code == 400, wrong
    client.post(f"/api/jobs/{id_}/cancel")
    assert post(new).status_code == 409
    client.refused(404, "POST", "/api/jobs/999/update", json=new)


def test_the_switches_of_a_queue_are_changed(client: Client, jobs: JobQueue) -> None:
    post = lambda verb, **body: client.post(
        f"/api/queues/default/{verb}", **({"json": body} if body else {})
    )
    assert [post("pause").json(), post("pause").json()] == [{"changed": 1}, {"changed": 0}]
    assert post("resume").json() == {"changed": 1}
    assert post("limit", limit=4).json() == {"changed": 1}
    assert post("rate", rate="5/30s", burst=2).json() == {"changed": 1}
    assert post("fair", fair=True).json() == {"changed": 1}
    for body in ({"limit": 4}, {"rate": "5/30s", "burst": 2}, {"fair": True}):
        assert post(next(iter(body)), **body).json() == {"changed": 0}
    client.id(2, 3)
    (row,) = client.get("/api/queues").json()
    shown = {name: row[name] for name in ("max_running", "rate_count", "rate_period", "rate_burst")}
    assert shown == {"max_running": 4, "rate_count": 5, "rate_period": 30.0, "rate_burst": 2}
    assert (row["fair"], row["paused"], row["available"]) == (True, False, 1)
    last = client.get("/api/log").json()[0]
    assert (last["before"], last["about"]) == ({"fair": False}, "queue default, fair off → on")
    undo = f"/api/log/{last['id']}/undo"
    assert client.post(undo).json() == {"changed": 1, "undone": "fair queue default, fair on → off"}
    error = client.refused(409, "POST", undo)
    assert error["field"] == "id" and "undone already, by http 127.0.0.1" in error["message"]
    client.refused(404, "POST", "/api/log/99/undo")
    for body in ({"limit": None}, {"rate": None}):
        assert post(next(iter(body)), **body).json() == {"changed": 1}
    assert client.get("/api/queues").json()[0]["max_running"] is None
    would = post("purge", dry_run=True).json()
    assert (would["would_change"], [job["task"] for job in would["sample"]]) == (1, ["add"])
    assert post("purge", dry=True).status_code == 400
    assert post("purge").json() == {"deleted": 1}
    assert list(jobs.list()) == []


@pytest.mark.parametrize(("kind", "name"), [("task", "add"), ("tag", "bulk")])
def test_a_task_or_a_tag_is_paused_and_resumed(client: Client, kind: str, name: str) -> None:
    call = {"task": "add", "args": [2, 3], "tags": ["bulk"]}
    id_ = client.post("/api/jobs", json=call).json()["id"]
    post = lambda verb: client.post(f"/api/{kind}s/{name}/{verb}").json()
    assert [post("pause"), post("pause")] == [{"changed": 1}, {"changed": 0}]
    (row,) = client.get("/api/stats").json()["pauses"]
    assert (row["kind"], row["name"], row["paused_by"]) == (kind, name, "http 127.0.0.1")
    assert client.get(f"/api/jobs/{id_}/why").json()["code"] == f"{kind}_paused"
    assert [post("resume"), post("resume")] == [{"changed": 1}, {"changed": 0}]
    assert [row["verb"] for row in client.get("/api/log").json()] == ["resume", "pause"]
    assert client.get("/api/log").json()[0]["target"] == {kind: name}
    client.refused(404, "POST", f"/api/{kind}s/nobody/pause")
    client.refused(400, "POST", f"/api/{kind}s/a%20b/resume")


@pytest.mark.parametrize(
    ("field", "verb", "body"),
    [
        ("limit", "limit", {"limit": -1}),
        ("limit", "limit", {"limit": "4"}),
        ("body", "limit", {"limit": 4, "rate": "1/s"}),
        ("body", "limit", [4]),
        ("rate", "rate", {"rate": "x/y"}),
        ("burst", "rate", {"rate": "1/s", "burst": 0}),
        ("burst", "rate", {"rate": None, "burst": 1}),
        ("fair", "fair", {"fair": 1}),
    ],
)
def test_a_wrong_switch_of_a_queue_changes_nothing(
    client: Client, field: str, verb: str, body: Any
) -> None:
    error = client.refused(400, "POST", f"/api/queues/default/{verb}", json=body)
    assert error["field"] == field
    assert client.get("/api/queues").json() == []
    client.refused(404, "POST", f"/api/queues/defualt/{verb}", json=body)


def test_a_waiting_job_is_cancelled_and_retried(client: Client) -> None:
    id_ = client.id(2, 3)
    changed = {"changed": 1, "refused": []}
    assert client.post(f"/api/jobs/{id_}/cancel").json() == changed
    assert client.get(f"/api/jobs/{id_}").json()["state"] == "cancelled"
    again = client.post(f"/api/jobs/{id_}/cancel")
    assert again.json() == {"changed": 0, "refused": [], "unchanged": 1}
    assert client.post(f"/api/jobs/{id_}/retry", json={}).json() == changed
    assert client.get(f"/api/jobs/{id_}").json()["state"] == "available"


def test_a_verb_in_the_wrong_state_is_a_conflict(client: Client, jobs: JobQueue) -> None:
    id_ = client.id(2, 3)
    with working(jobs):
        client.get(f"/api/jobs/{id_}", params={"wait": 30})
    response = client.post(f"/api/jobs/{id_}/cancel")
    assert response.status_code == 409
    answer = response.json()
    assert answer["error"]["message"] == f"job {id_}: it is succeeded and cannot be cancelled"
    assert answer["refused"][0]["state"] == "succeeded" and answer["changed"] == 0


def test_a_job_that_has_succeeded_is_retried_only_if_the_body_says_so(
    client: Client, jobs: JobQueue
) -> None:
    id_ = client.id(2, 3)
    with working(jobs):
        client.get(f"/api/jobs/{id_}", params={"wait": 30})
    path = f"/api/jobs/{id_}/retry"
    for body in ({}, {"succeeded": False}):
        response = client.post(path, json=body)
        assert response.status_code == 409
        assert 'ask for that with {"succeeded": true}' in response.json()["error"]["message"]
    for wrong in ({"succeeded": 1}, {"succeed": True}, [True]):
        client.refused(400, "POST", path, json=wrong)
    assert client.get(f"/api/jobs/{id_}").json()["state"] == "succeeded"
    assert client.post(path, json={"succeeded": True}).json() == {"changed": 1, "refused": []}
    assert client.get(f"/api/jobs/{id_}").json()["state"] == "available"


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_verb_on_no_job_is_not_found(client: Client, verb: str) -> None:
    assert client.refused(404, "POST", f"/api/jobs/77/{verb}")["value"] == 77


# Health


def test_health_needs_nothing_and_readiness_the_schema(client: Client) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.databases("postgres")
def test_without_the_schema_it_is_not_ready(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, jobs: JobQueue, serve: Serve
) -> None:
    with JobQueue(empty_url) as bare:
        monkeypatch.setattr(jobs, "store", bare.store)
        client = serve()
        response = client.get("/readyz")
        assert (response.status_code, response.json()["status"]) == (503, "not ready")
        assert "jobqueue db upgrade" in response.json()["error"]["message"]
        assert client.get("/api/jobs").status_code == 503
        assert client.get("/healthz").status_code == 200


# What a front may be allowed


def test_a_read_only_front_changes_nothing(serve: Serve, jobs: JobQueue) -> None:
    id_ = jobs.registry["add"].enqueue(2, 3).id
    client = serve(read_only=True)
    assert client.get(f"/api/jobs/{id_}").status_code == 200
    body = {"task": "add", "args": [1, 2]}
    assert "read-only" in client.refused(403, "POST", "/api/jobs", json=body)["message"]
    client.refused(403, "POST", f"/api/jobs/{id_}/cancel")
    assert rows(jobs) == 1


def test_head_answers_without_a_body(client: Client) -> None:
    client.id(2, 3)
    for path in ("/api/jobs", "/api/stats", "/healthz"):
        response = client.head(path)
        assert (response.status_code, response.content) == (200, b"")
    for path in ("/api/jobs", "/healthz"):
        head, got = client.head(path).headers, client.get(path).headers
        assert head.get("content-length") == got.get("content-length"), path
