"""The pages Jobs and Job, and their verbs, as a browser without scripts sees them."""

import json
import re

import pytest

from jobqueue import JobQueue
from jobqueue.store import bulk_preview
from jobqueue.store.audit import Audit
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind
from jobqueue.store.stats import Monitor
from jobqueue.web import live
from tests.web.conftest import Serve
from tests.web.dashboard.conftest import Pages, Run, ids_in, link_of, text_of


def test_the_first_page_is_there(pages: Pages) -> None:
    assert "There is no queue yet" in pages.get("/")
    assert "There is no job yet" in pages.get("/jobs")


def test_jobs_are_found_by_each_filter(pages: Pages, jobs: JobQueue, run: Run) -> None:
    client = pages.client
    failed = client.id("it broke", task="fail", tags=["red"])
    run()
    first = client.id(1, 2, queue="mail")
    second = client.id(3, 4, unique_key="order-7")
    later = client.id("x", task="echo", delay=60)

    def shown(query: str) -> list[int]:
        return ids_in(pages.get(f"/jobs?{query}"))

    assert shown("") == [later, second, first, failed]
    assert shown("state=failed") == shown("task=fail") == shown("tag=red") == [failed]
    assert shown("queue=mail&state=available") == [first]
    assert shown("state=scheduled") == [later]
    assert shown(f"q={first}") == [first]
    assert shown("q=order-7") == [second]
    assert shown("q=ad") == [second, first] and shown("q=nothing") == []
    assert shown("state=&task=&queue=&tag=&q=") == [later, second, first, failed]
    assert "did you mean fail?" in text_of(pages.get("/jobs?task=fial"))
    page = text_of(pages.get("/jobs?state=failed"))
    assert "1 job" in page and "ValueError: it broke" in page


@pytest.mark.parametrize("query", ["state=runing", "task=a%20b", "after=x", "what=1", "q=1&q=2"])
def test_a_wrong_address_is_said_on_a_page(pages: Pages, query: str) -> None:
    assert "That is not a valid address" in pages.get(f"/jobs?{query}", 400)


def test_a_long_list_has_pages(pages: Pages) -> None:
    lines = [{"task": "add", "args": [n, 0]} for n in range(60)]
    ids = pages.client.post("/api/jobs", json=lines).json()["ids"]
    first = pages.get("/jobs")
    older = pages.get("/" + link_of(first, "Older"))
    assert ids_in(first) + ids_in(older) == ids[::-1]
    assert "Older" not in older and ids_in(pages.get("/" + link_of(older, "Newest"))) == ids[:9:-1]


def test_a_job_is_told_from_its_why_to_its_attempts(pages: Pages, run: Run) -> None:
    big = 12345678901234567
    id_ = pages.client.id({"n": big, "list": [1, None, True]}, task="echo", tags=["a"], priority=-3)
    page = text_of(pages.get(f"/jobs/{id_}"))
    assert "no live worker serves queue default" in page and str(big) in page
    assert "jobqueue enqueue echo --args" in page and "--priority -3 --tag a" in page
    run()
    page = text_of(pages.get(f"/jobs/{id_}"))
    assert "succeeded" in page and "1 succeeded" in page and page.count(str(big)) >= 2
    failed = pages.client.id("no way", task="fail")
    run()
    page = text_of(pages.get(f"/jobs/{failed}"))
    assert "failed: 1 of 1 attempt" in page and "Traceback (most recent call last)" in page
    assert "enqueued" in page and "attempt 1 errored" in page


@pytest.mark.parametrize(("path", "status"), [("/jobs/77", 404), ("/jobs/x", 400), ("/no", 404)])
def test_what_is_not_there_is_said_on_a_page(pages: Pages, path: str, status: int) -> None:
    page = pages.get(path, status)
    assert "<h1>" in page and "To the first page" in page


def test_one_job_is_retried_with_one_button(pages: Pages, jobs: JobQueue, run: Run) -> None:
    id_ = pages.client.id(task="fail")
    run()
    page = pages.done(f"/jobs/{id_}/retry")
    assert "Retried 1 job." in page and jobs.get(id_).state == "available"
    assert "Retried" not in pages.get(f"/jobs/{id_}")  # Said once.
    (action,) = Audit(jobs.store).find(None)
    assert (action["verb"], action["changed"], action["target"]) == ("retry", 1, {"ids": [id_]})
    assert action["actor"] == "http 127.0.0.1"


def test_chosen_jobs_are_shown_before_they_are_changed(pages: Pages, jobs: JobQueue) -> None:
    ids = [pages.client.id(n, n) for n in range(4)]
    page = pages.get(f"/jobs/cancel?id={ids[0]}&id={ids[2]}&from=task%3Dadd")
    assert "Cancel 2 jobs" in page and jobs.get(ids[0]).state == "available"
    page = pages.done("/jobs/cancel", {"id": f"{ids[0]},{ids[2]}", "from": "task=add"})
    assert "Cancelled 2 jobs." in page and ids_in(page) == ids[::-1]
    states = [str(jobs.get(id_).state) for id_ in ids]
    assert states == ["cancelled", "available", "cancelled", "available"]


def test_all_that_match_are_counted_shown_and_changed(
    pages: Pages, jobs: JobQueue, run: Run
) -> None:
    other = pages.client.id(1, 1)
    for _ in range(12):
        pages.client.id(task="fail")
    run()
    listed = pages.get("/jobs?state=failed&task=fail")
    page = pages.get("/" + link_of(listed, "Retry all…"))
    assert "Retry 12 jobs" in page and page.count("<tr><td") == 10
    page = pages.done("/jobs/retry", {"state": "failed", "task": "fail", "all": "yes"})
    assert "Retried 12 jobs." in page
    (action,) = Audit(jobs.store).find(None)
    assert action["target"] == {"state": "failed", "task": "fail"}
    assert jobs.get(other).state == "succeeded"


def test_what_no_index_counts_is_changed_all_the_same(
    pages: Pages, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        pages.client.id(task="fail")
    run()
    monkeypatch.setattr(bulk_preview, "SCANNED_MAX", 2)
    page = text_of(pages.get("/jobs/retry?all=yes&state=failed&task=fail"))
    assert "Retry at least 2 jobs?" in page and "jobs were looked through" in page
    assert "Retry them all" in page
    page = text_of(pages.get("/jobs/retry?all=yes&state=failed&task=add"))
    assert "Retry all jobs that match?" in page
    page = pages.done("/jobs/retry", {"state": "failed", "task": "fail", "all": "yes"})
    assert "Retried 3 jobs." in page


def test_a_succeeded_job_runs_again_only_if_that_is_asked(
    pages: Pages, jobs: JobQueue, run: Run
) -> None:
    id_ = pages.client.id(1, 1)
    run()
    assert "No job that was chosen can be retried" in pages.get(f"/jobs/retry?id={id_}")
    page = pages.done("/jobs/retry", {"id": str(id_)})
    assert "Retried 0 jobs." in page and "has succeeded" in page
    assert "Run again…" in page
    page = pages.done("/jobs/retry", {"id": str(id_), "succeeded": "yes"})
    assert "Retried 1 job." in page and jobs.get(id_).state == "available"


def test_a_job_that_is_deleted_leads_back_to_the_list(pages: Pages) -> None:
    id_ = pages.client.id(1, 1)
    page = pages.done("/jobs/delete", {"id": str(id_)})
    assert "Deleted 1 job." in page and ids_in(page) == []


@pytest.mark.parametrize("verb", ["retry", "cancel", "delete"])
def test_nothing_chosen_is_not_everything(pages: Pages, jobs: JobQueue, verb: str) -> None:
    id_ = pages.client.id(1, 1)
    assert "choose some jobs" in pages.get(f"/jobs/{verb}", 400)
    for fields in ({}, {"state": "available"}, {"id": str(id_), "all": "yes"}):
        assert pages.send(f"/jobs/{verb}", fields).status_code == 400
    assert jobs.get(id_).state == "available"


def test_a_fragment_is_the_part_that_changes_and_304_while_it_does_not(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "KEEP_MIN", 0.0)
    id_ = pages.client.id(1, 1, delay=3600)
    headers = {"HX-Request": "true"}
    part = pages.client.get("/jobs", headers=headers)
    assert part.text.lstrip().startswith('<div id="live"') and "token" not in part.text
    assert ids_in(part.text) == [id_]
    again = pages.client.get("/jobs", headers=headers | {"If-None-Match": part.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    pages.client.id(2, 2)
    again = pages.client.get("/jobs", headers=headers | {"If-None-Match": part.headers["etag"]})
    assert again.status_code == 200


def test_a_read_only_server_has_no_verbs(serve: Serve, jobs: JobQueue) -> None:
    id_ = jobs.registry["add"].enqueue(1, 1).id
    pages = Pages(serve(read_only=True))
    for path in ("/jobs", f"/jobs/{id_}"):
        page = pages.get(path)
        assert not re.search(r"(Retry|Cancel|Delete)\b", page)
    assert pages.send(f"/jobs/{id_}/cancel").status_code == 403
    assert pages.send("/jobs/delete", {"id": str(id_)}).status_code == 403
    Pauses(jobs.store, "ada").pause(PauseKind.QUEUE, "default")
    assert "pause" in pages.get("/log") and "Undo</button>" not in pages.get("/log")
    assert pages.send("/log/1/undo").status_code == 403
    assert pages.client.post("/api/log/1/undo").status_code == 403
    assert Monitor(jobs.store).bounded_queues()[0]["paused"]
    assert 'data-theme="dark"' in pages.done("/theme", {"theme": "dark", "to": "/jobs"})


def test_the_colours_are_right_at_the_first_paint(pages: Pages) -> None:
    assert 'data-theme="auto"' in pages.get("/jobs")
    page = pages.done("/theme", {"theme": "dark", "to": "/jobs?state=failed"})
    assert '<html lang="en" data-theme="dark">' in page and 'href="./jobs"' in page
    assert pages.send("/theme", {"theme": "pink"}).status_code == 400


def test_plain_sql_may_have_written_anything(pages: Pages, jobs: JobQueue) -> None:
    id_ = pages.client.id(1, 1)
    for args in ('"text"', json.dumps({"args": {}, "kwargs": []}), "[" * 900 + "]" * 900):
        with jobs.store.write() as connection:
            connection.exec_driver_sql(f"UPDATE jobqueue_jobs SET args = '{args}', headers = '[1]'")
        assert "<h1>" in pages.get(f"/jobs/{id_}") and ids_in(pages.get("/jobs")) == [id_]


def test_what_a_task_hides_is_on_no_page_and_in_no_answer(pages: Pages, jobs: JobQueue) -> None:
    secret = "hunter2-sentinel"

    @jobs.task(redact=("token",))
    def login(user: int, token: str) -> None: ...

    answer = pages.client.enqueue(7, secret, task="login")
    assert answer.json()["args"] == [7, "‹hidden›"]
    id_ = answer.json()["id"]
    for path in (
        "/jobs",
        f"/jobs/{id_}",
        f"/jobs/cancel?id={id_}",
        "/api/jobs",
        f"/api/jobs/{id_}",
    ):
        page = pages.get(path)
        assert secret not in page and "hidden" in page, path
    assert secret in jobs.get(id_).record().args
    with jobs.store.write() as connection:
        connection.exec_driver_sql("UPDATE jobqueue_redactions SET hidden = '[]'")
    assert "all arguments of task login are hidden" in pages.get("/")
    assert pages.client.get(f"/api/jobs/{id_}").json()["args"] == ["‹hidden›"] * 2
    assert pages.client.enqueue(8, secret, task="login").json()["args"] == ["‹hidden›"] * 2


def test_jobs_that_wait_are_moved_and_get_another_priority(pages: Pages, jobs: JobQueue) -> None:
    ids = [pages.client.id(n, n) for n in range(3)]
    asked = pages.get(f"/jobs/update?id={ids[0]}&id={ids[1]}")
    assert "Change 2 jobs?" in asked and 'name="new_queue"' in asked
    fields = {"id": f"{ids[0]},{ids[1]}", "new_queue": "slow", "new_priority": "5"}
    assert "Updated 2 jobs." in pages.done("/jobs/update", fields)
    found = [(job.queue, job.priority) for job in jobs.list()]
    assert found == [("default", 0), ("slow", 5), ("slow", 5)]
    (action,) = Audit(jobs.store).find(None)
    assert action["target"] == {"ids": ids[:2], "set": {"queue": "slow", "priority": 5}}
    for wrong in ({}, {"new_priority": "soon"}, {"new_queue": "no good"}):
        assert pages.send("/jobs/update", {"id": str(ids[0]), **wrong}).status_code == 400


def test_the_page_of_a_job_that_waits_for_its_key_says_so(pages: Pages, jobs: JobQueue) -> None:
    pages.client.id(1, 2, unique_key="k")
    with jobs.store.write() as connection:
        connection.exec_driver_sql("UPDATE jobqueue_jobs SET state = 'running', worker_id = 7")
    next_ = pages.client.id(3, 4, unique_key="k", rerun=True)
    page = text_of(pages.get(f"/jobs/{next_}"))
    assert "waits for its unique key" in page and "finished, waits for it" in page
    assert "scheduled for" not in page and " due " not in page
