"""What a reviewer of the dashboard found: odd texts, names and forms, and what pages leave unsaid."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError

from jobqueue import JobQueue
from jobqueue.store.schema import attempts
from jobqueue.web.pages.job import _as_command, _as_python
from tests.web.conftest import Serve
from tests.web.dashboard.conftest import Pages, text_of


@pytest.mark.parametrize(
    "path",
    ["/jobs?q=%00", "/jobs/retry?all=yes&q=%00", "/jobs?error=a%20%00", "/api/jobs?error=a%20%00"],
)
def test_a_nul_in_an_address_is_refused(pages: Pages, path: str) -> None:
    assert "cannot be stored" in pages.get(path, 400)


def test_a_nul_in_a_form_is_refused(pages: Pages) -> None:
    response = pages.send("/jobs/retry", {"all": "yes", "q": "a\0b"})
    assert response.status_code == 400 and "cannot be stored" in response.text


def test_a_form_of_too_many_fields_is_too_large(pages: Pages) -> None:
    response = pages.send("/jobs/cancel", {f"f{n}": "1" for n in range(1001)})
    assert response.status_code == 413 and "1,000 fields" in response.text


def test_now_says_that_anybody_may_do_everything(serve: Serve) -> None:
    pages = Pages(serve(hosts=["127.0.0.1", "dash.example"]))
    assert "dash.example" in text_of(pages.get("/")).partition("The last hour")[0]


def test_what_is_mended_with_a_button_is_found_no_more_at_once(pages: Pages) -> None:
    pages.client.id(1, 2, queue="mail")
    pages.done("/queues/mail/limit", {"limit": "0"})
    assert "mail has the limit 0" in pages.get("/")
    pages.done("/queues/mail/limit", {"limit": ""})
    assert "mail has the limit 0" not in pages.get("/")


@pytest.mark.parametrize("how", [{"read_only": True}, {"authorize": lambda _: "read"}])
def test_what_would_change_has_no_button_for_who_may_not(
    serve: Serve, jobs: JobQueue, how: dict[str, Any]
) -> None:
    jobs.registry["add"].enqueue(1, 1)
    pages = Pages(serve(**how))
    for verb in ("delete", "update"):
        page = pages.get(f"/jobs/{verb}?all=yes")
        assert f'action="./{verb}"' not in page and "<button class=" not in page
        assert "new_queue" not in page and "Back" in page


@pytest.mark.parametrize("name", ["items", "keys", "get"])
def test_a_queue_may_have_any_name(pages: Pages, jobs: JobQueue, name: str) -> None:
    pages.client.id(1, 2, queue=name)
    with jobs.store.write() as connection:
        connection.exec_driver_sql("DELETE FROM jobqueue_audit")
    jobs.pause(name)
    with jobs.store.write() as connection:
        connection.exec_driver_sql("DELETE FROM jobqueue_audit")
    for path in ("/", "/queues", f"/queues/{name}"):
        page = pages.get(path)
        assert "built-in" not in page and "paused" in page


def test_a_form_that_the_database_did_not_answer_is_not_sent_by_a_link(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OperationalError("", {}, OSError())

    pages.client.id(1, 2, queue="mail")
    token = pages.token()
    monkeypatch.setattr("jobqueue.store.pauses.Pauses.pause", fails)
    monkeypatch.setattr("jobqueue.web.pages.now.queue_rows", fails)
    response = pages.send("/queues/mail/pause", {"token": token}, headers={})
    assert response.status_code == 503 and "unique_key" not in response.text
    assert "look whether it was done" in response.text and "Try again" not in response.text
    assert "Try again" in pages.get("/", 503)


@pytest.mark.parametrize(
    "path", ["/queues/never-existed/pause", "/tasks/nosuch/pause", "/tags/nosuch/pause"]
)
def test_a_form_makes_no_switch_for_a_name_that_is_not_there(pages: Pages, path: str) -> None:
    response = pages.send(path)
    assert response.status_code == 404 and "is not known" in response.text


def test_a_blank_search_is_no_filter(pages: Pages) -> None:
    pages.client.id(1, 2)
    assert "none: all jobs of this database" in pages.get("/jobs/delete?all=yes&q=%20")


def test_of_many_attempts_the_newest_are_shown(pages: Pages, jobs: JobQueue) -> None:
    id_, at = pages.client.id(1, 2), datetime.now(UTC)
    with jobs.store.write() as connection:
        rows = [
            {"job_id": id_, "attempt": n, "fence": n, "outcome": "errored", "finished_at": at}
            for n in range(1, 121)
        ]
        connection.execute(insert(attempts), rows)
    page = pages.get(f"/jobs/{id_}")
    assert re.findall(r'id="attempt-(\d+)"', page) == [str(n) for n in range(120, 70, -1)]
    assert "70 more" in text_of(page)


def test_a_call_with_hidden_arguments_is_not_offered_again(pages: Pages, jobs: JobQueue) -> None:
    @jobs.task(redact=("token",))
    def login(user: int, token: str) -> None: ...

    id_ = pages.client.id(7, "x", task="login")
    page = pages.get(f"/jobs/{id_}")
    assert "enqueue" not in page.split("<h2>Arguments")[1].split("<h2>Facts")[0]
    assert "Its call is left out" in page


def test_the_call_of_a_job_can_be_run(jobs: JobQueue) -> None:
    job = jobs.registry["echo"].enqueue(1).record()
    odd = replace(job, task="-x", args='{"args": [1], "kwargs": {"class": 1}}')
    assert _as_command(odd) == """jobqueue enqueue --args '[1]' --kwargs '{"class": 1}' -- -x"""
    assert _as_python(odd) == "jobs.registry['-x'].enqueue(1, **{'class': 1})"


def test_only_the_cookie_of_a_session_gets_a_form_token(serve: Serve) -> None:
    pages = Pages(serve(token="a-long-random-token"))
    page = pages.get("/login", headers={"Cookie": "jobqueue_session=x"})
    port = pages.client.base_url.port
    page += pages.get("/login", headers={"Cookie": f"jobqueue_session_{port}=x"})
    assert 'name="token"' not in page


def test_who_is_refused_still_gets_the_files_of_the_page_that_says_so(serve: Serve) -> None:
    pages = Pages(serve(authorize=lambda _: None))
    style = pages.get("/", 403).split('rel="stylesheet" href="./')[1].split('"')[0]
    assert pages.client.get("/" + style).status_code == 200
    assert pages.client.get("/login").status_code == 200


@pytest.mark.parametrize("answer", [7, "write", {"retri"}, [1], {"retry": True, "x": 1}])
def test_a_wrong_answer_of_authorize_is_told_to_the_log_only(
    serve: Serve, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    page = Pages(serve(authorize=lambda _: answer)).get("/", 500)
    assert "authorize" not in page and "authorize: " in caplog.text
