"""The verbs of the API for many jobs, and what is read in pages."""

from typing import Any

import pytest
from sqlalchemy import update

from jobqueue import JobQueue
from jobqueue.store import job_pages
from jobqueue.store.schema import jobs as rows
from tests.web.conftest import Client, working


@pytest.fixture
def three(client: Client) -> list[int]:
    """Jobs in two queues, of which two have a tag."""
    lines = [{"task": "add", "args": [n, n], "tags": ["red"][: n - 1]} for n in (1, 2, 3)]
    lines[2]["queue"] = "mail"
    ids: list[int] = client.post("/api/jobs", json=lines).json()["ids"]
    return ids


def states(jobs: JobQueue) -> list[str]:
    return [job.state.value for job in reversed(list(jobs.list(limit=None)))]


def test_jobs_are_changed_by_their_ids_or_by_a_filter(
    client: Client, jobs: JobQueue, three: list[int]
) -> None:
    post = lambda verb, **body: client.post(f"/api/jobs/{verb}", json=body).json()
    assert post("cancel", filter={"tag": "red"}, dry_run=True) == {
        "dry_run": True,
        "would_change": 2,
        "sample": [{"id": id_, "task": "add"} for id_ in three[:0:-1]],
    }
    assert states(jobs) == ["available"] * 3
    assert post("cancel", filter={"tag": "red"}) == {"changed": 2, "refused": []}
    assert states(jobs) == ["available", "cancelled", "cancelled"]
    assert post("retry", ids=[three[1], three[1]])["changed"] == 1
    changed = post("update", ids=three, set={"priority": 7, "queue": "late"})
    assert changed["changed"] == 2
    assert [(each["id"], each["state"]) for each in changed["refused"]] == [(three[2], "cancelled")]
    assert post("retry", all=True)["changed"] == 1
    assert post("delete", filter={"queue": "mail", "q": str(three[2])})["changed"] == 1
    assert post("delete", ids=[three[2]])["refused"][0]["state"] is None
    assert post("delete", all=True, dry_run=True)["would_change"] == 2
    assert [
        (row["verb"], row["target"], row["changed"]) for row in client.get("/api/log").json()
    ] == [
        ("delete", {"ids": [three[2]]}, 1),
        ("retry", {"all": True}, 1),
        ("update", {"ids": three, "set": {"priority": 7, "queue": "late"}}, 2),
        ("retry", {"ids": [three[1]]}, 1),
        ("cancel", {"tag": "red"}, 2),
    ]


def test_an_update_of_jobs_that_are_so_already_changes_none_and_a_dry_run_counts_them(
    client: Client, three: list[int]
) -> None:
    update = lambda **body: client.post("/api/jobs/update", json=body).json()
    change = {"ids": three, "set": {"priority": 7}}
    assert update(**change) == {"changed": 3, "refused": []}
    assert update(**change) == {"changed": 0, "refused": [], "unchanged": 3}
    assert update(**change, dry_run=True)["would_change"] == 3
    assert len(client.get("/api/log").json()) == 1


def test_a_bulk_retry_leaves_out_what_has_succeeded_unless_it_is_asked_for(
    client: Client, jobs: JobQueue
) -> None:
    id_, failed = client.id(2, 3), client.id("no", task="fail")
    with working(jobs):
        for each in (id_, failed):
            client.get(f"/api/jobs/{each}", params={"wait": 30})
    post = lambda **body: client.post("/api/jobs/retry", json=body)
    group = client.get("/api/errors").json()[0]["id"]
    assert post(filter={"error": group}, dry_run=True).json()["would_change"] == 1
    assert post(all=True).json() == {"changed": 1, "refused": [], "left_out": 1}
    refused = post(ids=[id_]).json()["refused"]
    assert '{"succeeded": true}' in refused[0]["reason"]
    assert '{"succeeded": true}' in post(filter={"state": "succeeded"}).json()["error"]["message"]
    assert post(filter={"state": "succeeded"}, succeeded=True).json()["changed"] == 1


def test_a_bulk_verb_that_finds_nothing_names_what_is_not_known(client: Client) -> None:
    client.id(1, 1, queue="mail")
    response = client.post("/api/jobs/cancel", json={"filter": {"queue": "mial"}})
    assert (response.status_code, response.json()["changed"]) == (200, 0)
    assert "did you mean mail?" in response.headers["jobqueue-notice"]


WRONG: list[tuple[int, str, str, Any]] = [
    (400, "ids", "cancel", {}),
    (400, "ids", "cancel", {"ids": [1], "all": True}),
    (400, "ids", "cancel", {"ids": []}),
    (400, "ids", "cancel", {"ids": 7}),
    (400, "ids", "cancel", {"ids": ["7"]}),
    (400, "ids", "cancel", {"ids": [True]}),
    (400, "ids", "cancel", {"ids": [2**63 - 1, 0]}),
    (413, "ids", "cancel", {"ids": [1] * 10_001}),
    (400, "all", "cancel", {"all": False}),
    (400, "filter", "cancel", {"filter": {}}),
    (400, "filter", "cancel", {"filter": []}),
    (400, "filter", "cancel", {"filter": {"sate": "failed"}}),
    (400, "queue", "cancel", {"filter": {"queue": ""}}),
    (400, "queue", "cancel", {"filter": {"queue": 7}}),
    (400, "state", "cancel", {"filter": {"state": "runing"}}),
    (400, "state", "cancel", {"filter": {"state": "failed"}}),
    (400, "state", "retry", {"filter": {"state": "succeeded"}}),
    (400, "state", "delete", {"filter": {"state": "running", "q": "1"}}),
    (400, "error", "retry", {"filter": {"error": "0123456789ab"}}),
    (400, "dry_run", "delete", {"all": True, "dry_run": 1}),
    (400, "succeeded", "retry", {"all": True, "succeeded": "yes"}),
    (400, "body", "cancel", {"all": True, "succeeded": True}),
    (400, "priority", "update", {"all": True}),
    (400, "set", "update", {"all": True, "set": []}),
    (400, "state", "update", {"all": True, "set": {"state": "failed"}}),
]


@pytest.mark.databases("sqlite")
def test_a_wrong_bulk_verb_changes_nothing(client: Client, jobs: JobQueue) -> None:
    client.id(1, 1)
    for status, field, verb, body in WRONG:
        error = client.refused(status, "POST", f"/api/jobs/{verb}", json=body)
        assert error["field"] == field, (verb, body, error)
    assert states(jobs) == ["available"]


def test_a_job_is_deleted_unless_it_runs(client: Client, jobs: JobQueue) -> None:
    id_ = client.id(1, 1)
    assert client.delete(f"/api/jobs/{id_}").json() == {"changed": 1, "refused": []}
    assert client.refused(404, "DELETE", f"/api/jobs/{id_}")["value"] == id_
    assert client.get("/api/log").json()[0]["verb"] == "delete"
    held = client.id(2, 2)
    with jobs.store.write() as connection:
        connection.execute(update(rows).where(rows.c.id == held).values(state="running"))
    error = client.refused(409, "DELETE", f"/api/jobs/{held}")
    assert error["message"] == f"job {held}: it is running and cannot be deleted"


# Pages


def test_a_list_is_read_in_pages_by_its_links(client: Client, jobs: JobQueue) -> None:
    lines = [{"task": "add", "args": [n, 0], "tags": ["odd"][: n % 2]} for n in range(9)]
    client.post("/api/jobs", json=lines)

    def pages(path: str) -> list[list[int]]:
        found = []
        while path:
            response = client.get(path)
            found.append([job["args"][0] for job in response.json()])
            path = response.links.get("next", {}).get("url", "")
        return found

    assert pages("/api/jobs?limit=4") == [[8, 7, 6, 5], [4, 3, 2, 1], [0]]
    assert pages("/api/jobs?limit=3") == [[8, 7, 6], [5, 4, 3], [2, 1, 0]]
    assert pages("/api/jobs?tag=odd&limit=3") == [[7, 5, 3], [1]]
    assert pages("/api/jobs?state=available&task=add") == [[8, 7, 6, 5, 4, 3, 2, 1, 0]]
    assert pages("/api/jobs?state=failed") == [[]]
    assert client.get("/api/jobs?limit=1000").status_code == 200
    client.refused(400, "GET", "/api/jobs?limit=1001")
    client.refused(400, "GET", "/api/jobs?before=0")
    assert client.get("/api/jobs?q=ad&limit=1&before=4").json()[0]["args"] == [2, 0]
    assert client.head("/api/jobs?limit=1").links["next"]["url"].endswith("limit=1&before=9")


def test_a_page_looks_beyond_the_rows_that_one_statement_reads(
    client: Client, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_pages, "WINDOW", 2)
    monkeypatch.setattr(job_pages, "FEW", 0)
    lines = [
        {"task": "add", "args": [n, 0], "tags": ["rare"] if n in (0, 7) else []} for n in range(9)
    ]
    client.post("/api/jobs", json=lines)
    for query in ({"tag": "rare"}, {"tag": "rare", "state": "available"}):
        listed = client.get("/api/jobs", params=query)
        assert [job["args"][0] for job in listed.json()] == [7, 0]
        assert listed.links == {}


def test_the_log_is_read_in_pages(client: Client, three: list[int]) -> None:
    for id_ in three:
        client.post(f"/api/jobs/{id_}/cancel")
    first = client.get("/api/log?limit=2")
    second = client.get(first.links["next"]["url"])
    assert [row["target"]["ids"] for row in first.json() + second.json()] == [
        [id_] for id_ in reversed(three)
    ]
    assert second.links == {}


# Tasks and schedules


def test_tasks_are_listed_with_their_arguments_as_json_schema(
    client: Client, jobs: JobQueue
) -> None:
    stranger = JobQueue(str(jobs.store.url.render_as_string(hide_password=False)))

    @stranger.task
    def elsewhere() -> None: ...

    elsewhere.enqueue()
    stranger.close()
    tasks = {row["task"]: row for row in client.get("/api/tasks").json()}
    assert tasks["add"]["arguments"] == {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
        "required": ["x", "y"],
        "additionalProperties": False,
    }
    assert (tasks["add"]["registered"], tasks["add"]["waiting"]) == (True, 0)
    assert (tasks["elsewhere"]["registered"], tasks["elsewhere"]["arguments"]) == (False, None)


def test_defaults_of_what_a_task_hides_are_in_no_list_of_tasks(
    client: Client, jobs: JobQueue
) -> None:
    @jobs.task(redact=("password", "key"))
    def login(user: str = "me", password: str = "hunter2", *, key: str) -> None: ...

    (row,) = (row for row in client.get("/api/tasks").json() if row["task"] == "login")
    assert row["signature"] == "(user: str = 'me', password: str = '‹hidden›', *, key: str) -> None"
    assert "hunter2" not in str(row)


def test_a_schedule_is_added_changed_and_previewed(client: Client, jobs: JobQueue) -> None:
    body: dict[str, Any] = {"name": "nightly", "task": "add", "args": [1, 2], "priority": 3}
    post = lambda **more: client.post("/api/schedules", json=body | more)
    added = post(cron="0 3 * * *", tz="Europe/Zurich").json()
    assert added == client.get("/api/schedules/nightly").json()
    assert (added["cron"], added["options"], added["overlap"]) == (
        "0 3 * * *",
        {"priority": 3},
        "skip",
    )
    assert post(cron="0 3 * * *", tz="Europe/Zurich").status_code == 200
    assert "there is a schedule 'nightly' already" in post(every=60).json()["error"]["message"]
    assert post(every="90s", replace=True, overlap="allow").json()["every"] == 90
    runs = client.get("/api/schedules/nightly/preview?days=1&limit=2").json()
    assert len(runs) == 2 and runs[0]["note"] is None
    assert [row["verb"] for row in client.get("/api/log").json()] == ["add", "add"]
    for field, wrong in (
        ("cron", {}),
        ("cron", {"cron": "@daily", "every": 60}),
        ("cron", {"cron": "soon"}),
        ("cron", {"cron": 5}),
        ("tz", {"every": 60, "tz": "UTC"}),
        ("tz", {"cron": "@daily", "tz": "Zurich"}),
        ("every", {"every": 0}),
        ("catch_up", {"every": 60, "catch_up": "some"}),
        ("overlap", {"every": 60, "overlap": 5}),
        ("replace", {"every": 60, "replace": 1}),
        ("name", {"every": 60, "name": "a b"}),
        ("task", {"every": 60, "task": "ad"}),
        ("x", {"every": 60, "args": ["one", 2]}),
        ("body", {"every": 60, "delay": 5}),
    ):
        error = client.refused(400, "POST", "/api/schedules", json=body | wrong)
        assert error["field"] == field, (wrong, error)
    client.refused(404, "GET", "/api/schedules/none")
    client.refused(404, "GET", "/api/schedules/none/preview")


def test_a_schedule_hides_what_its_task_hides(client: Client, jobs: JobQueue) -> None:
    @jobs.task(redact=("password",))
    def login(password: str) -> None: ...

    body = {"name": "in", "task": "login", "args": ["hunter2"], "every": 60}
    assert client.post("/api/schedules", json=body).json()["args"] == ["‹hidden›"]
    assert client.get("/api/schedules/in").json()["args"] == ["‹hidden›"]
