"""The pages Queues, Tasks, Workers, Schedules and Log, and their verbs."""

import re
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from jobqueue import JobQueue, cron, every, overview
from jobqueue.store import queue_figures, schedule_runs
from jobqueue.store import schema as tables
from jobqueue.store.audit import Audit
from jobqueue.store.audit_words import about
from jobqueue.store.history import Figures, History
from jobqueue.store.queue_control import QueueControl
from jobqueue.store.stats import Monitor
from tests.web.dashboard.conftest import Pages, Run, ids_in, text_of


def cells(page: str, kind: str) -> dict[str, list[str]]:
    """The cells of each line of a table, by the first word of its first."""
    lines = re.findall(rf'<tr id="{kind}-\d+">(.*?)</tr>', page, re.DOTALL)
    found = [
        [text_of(cell).strip() for cell in re.findall(r"<td.*?</td>", line, re.DOTALL)]
        for line in lines
    ]
    return {name.split()[0]: rest for name, *rest in found}


# Queues


def test_numbers_that_are_bounds_have_a_plus(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EACH", "BUDGET", "AVAILABLE_MAX", "SCHEDULED_MAX"):
        monkeypatch.setattr(queue_figures, name, 1)
    for delay in (None, None, 60, 60):
        pages.client.id(1, 2, queue="mail", delay=delay)
    assert cells(pages.get("/queues"), "queue")["mail"][0] == "1+ + 2+"
    assert cells(pages.get("/"), "queue")["mail"][0] == "1+ + 2+"
    live = {"HX-Request": "true"}
    assert "At least 3 jobs that wait" in pages.get("/queues/mail/purge", headers=live)


def test_queues_show_their_limits_and_what_ended_in_them(pages: Pages, run: Run) -> None:
    pages.client.id(task="fail", queue="crm")
    run()
    pages.client.id(1, 2, queue="mail", delay=60)
    for verb, fields in (("limit", {"limit": "4"}), ("rate", {"rate": "100/minute", "burst": "7"})):
        assert "/queues/crm" in str(
            pages.send(f"/queues/crm/{verb}", fields | {"to": "/queues/crm"}).headers
        )
    lines = cells(pages.get("/queues"), "queue")
    assert lines["crm"][:7] == ["0", "0", "4", "100/minute, burst 7", "–", "0", "1"]
    assert lines["mail"][:3] == ["0 + 1", "0", "–"]


def test_the_switches_of_a_queue_are_set_and_taken_back(pages: Pages, jobs: JobQueue) -> None:
    pages.client.id(1, 2, queue="mail")

    def said(verb: str, **fields: str) -> str:
        return text_of(pages.done(f"/queues/mail/{verb}", fields | {"to": "/queues/mail"}))

    def row() -> dict[str, Any]:
        return next(row for row in Monitor(jobs.store).bounded_queues() if row["queue"] == "mail")

    assert "Queue mail runs at most 4 jobs at once." in said("limit", limit="4")
    assert "Queue mail runs at most 4 jobs at once already." in said("limit", limit="4")
    assert row()["max_running"] == 4
    assert "starts 5/30s, burst 2" in said("rate", rate="5/30s", burst="2")
    assert (row()["rate_count"], row()["rate_burst"]) == (5, 2)
    assert "shares fairly" in said("fair", fair="yes") and row()["fair"]
    assert "has no limit" in said("limit", limit="") and row()["max_running"] is None
    assert "has no rate" in said("rate", rate="") and row()["rate_count"] is None
    assert "as they come" in said("fair", fair="no") and not row()["fair"]
    verbs = [action["verb"] for action in Audit(jobs.store).find(None)]
    assert verbs == ["fair", "rate", "limit"] * 2


@pytest.mark.parametrize(
    ("verb", "fields"),
    [
        ("limit", {"limit": "-1"}),
        ("limit", {"limit": "x"}),
        ("rate", {"rate": "often"}),
        ("rate", {"burst": "2"}),
    ],
)
def test_a_wrong_switch_changes_nothing(
    pages: Pages, jobs: JobQueue, verb: str, fields: dict[str, str]
) -> None:
    assert pages.send(f"/queues/default/{verb}", fields).status_code == 400
    assert Audit(jobs.store).find(None) == []


def test_a_purge_says_first_how_many_it_deletes(pages: Pages, jobs: JobQueue) -> None:
    kept = pages.client.id(1, 2)
    for delay in (0, 60):
        pages.client.id(1, 2, queue="mail", delay=delay)
    assert "2 jobs that wait in queue mail will be deleted" in pages.get("/queues/mail/purge")
    assert len(list(jobs.list())) == 3
    page = pages.send("/queues/mail/purge")
    assert page.headers["location"] == "../../queues/mail"
    assert [job.id for job in jobs.list()] == [kept]


def test_a_queue_that_is_not_there_is_said_on_a_page(pages: Pages) -> None:
    assert "there is no queue &#39;nothing&#39;" in pages.get("/queues/nothing", 404)


def times_of(page: str) -> list[str]:
    """The four figures of a queue's last hour."""
    return re.findall(r"within</dt><dd>(?:<span[^>]*>)?([^<]+)", page)


def test_a_queue_shows_how_long_its_jobs_took_and_waited_in_the_last_hour(
    pages: Pages, jobs: JobQueue
) -> None:
    for name in ("mail", "crm"):
        pages.client.id(1, 2, queue=name)
    assert times_of(pages.get("/queues/mail")) == ["–"] * 4
    times = {"duration_p50": 2.0, "wait_p50": 4.0}
    figures = Figures("add", 9, 0, 0, 0, 20.0, 3.0, 40.0, 5.0, **times, queue="mail")
    slow = figures._replace(processed=1, duration_p50=50.0, duration_p95=70.0, wait_p50=1.0)
    History(jobs.store).add("w7", [figures, slow])
    assert times_of(pages.get("/queues/mail")) == ["2s", "1m10s", "4s", "5s"]
    assert times_of(pages.get("/queues/crm")) == ["–"] * 4
    line = cells(pages.get("/tasks"), "task")["add"]
    assert line[4:10] == ["–", "2s", "1m10s", "–", "4s", "5s"]


# Tasks


def test_tasks_show_what_they_take_and_who_knows_them(
    pages: Pages, jobs: JobQueue, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages.client.id(1, 2)
    pages.client.id(task="fail")
    run()
    for _ in range(3):
        pages.client.id(1, 2)
    lines = cells(pages.get("/tasks"), "task")
    assert lines["add"][:4] == ["3", "1", "0", "0"] and lines["fail"][:4] == ["0", "0", "1", "1"]
    assert lines["add"][4].endswith("s") and lines["add"][-2] == "none"
    assert "No live worker knows this task" in pages.get("/tasks")
    with jobs.worker(poll=0.05):
        assert cells(pages.get("/tasks"), "task")["add"][-2] == "1"
    monkeypatch.setattr(queue_figures, "TASKS_MAX", 2)
    for _ in range(3):
        pages.client.id(1, 2)
    assert cells(pages.get("/tasks"), "task")["add"][0] == "2+"


def test_tasks_and_tags_are_paused_and_resumed(pages: Pages, jobs: JobQueue) -> None:
    pages.client.id(1, 2, tags=["red"])
    page = pages.done("/tasks/add/pause", {"to": "/tasks"})
    assert "Task add is paused." in page and "add paused by http 127.0.0.1" in text_of(page)
    page = pages.done("/tags/red/pause", {"to": "/tasks"})
    assert "Tag red is paused by http 127.0.0.1" in text_of(page)
    assert pages.get("/log").count("Undo</button>") == 2
    assert "was already paused" in pages.done("/tasks/add/pause", {"to": "/tasks"})
    pages.send("/tags/red/resume")
    page = pages.done("/tasks/add/resume", {"to": "/tasks"})
    assert "paused by" not in page and Monitor(jobs.store).pauses() == []


# Workers


def test_workers_show_their_slots_and_what_is_stuck(
    pages: Pages, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> None:
    began, release = threading.Event(), threading.Event()

    @jobs.task
    def hold() -> None:
        began.set()
        release.wait(60)

    assert "No worker is there" in pages.get("/workers")
    job = hold.enqueue()
    with jobs.worker(poll=0.05, concurrency=3, name="w7") as worker:
        try:
            assert began.wait(60)
            page = pages.get("/workers")
            assert page.count('<i class="busy"></i>') == 2  # One is in the key below.
            (line,) = cells(page, "worker").values()
            assert "1 of 3 busy" in line[0] and f"{job.id} hold" in line[2]
            assert line[1] == "–" and "draining" not in page
            figures = {"busy": 15.0, "slots": 60.0}
            History(jobs.store).add("w7", [Figures("", 1, 0, 0, 0, 1.0, 1.0, 0.0, 0.0, **figures)])
            (line,) = cells(pages.get("/workers"), "worker").values()
            assert line[1] == "25 %"
            monkeypatch.setattr(overview, "STUCK_AFTER", -3600.0)
            job.cancel()
            assert "is asked to stop, and goes on" in text_of(pages.get("/workers"))
            stopper = threading.Thread(target=worker.stop)
            stopper.start()
            wait_until(lambda: Monitor(jobs.store).workers()[0]["stopping_at"])
            page = pages.get("/workers")
            assert "draining" in page and "no other begins" in page
            assert page.count('<i class="free"></i>') == 1  # That in the key below.
        finally:
            release.set()
    assert worker is not None


# Schedules


def test_schedules_are_shown_in_words_and_switched(pages: Pages, jobs: JobQueue) -> None:
    add = jobs.registry["add"]
    jobs.schedules.add("nightly", add.call(1, 2), cron("0 3 * * *", tz="Europe/Zurich"))
    jobs.schedules.add("often", add.call(1, 2), every(minutes=5))
    lines = cells(pages.get("/schedules"), "schedule")
    assert (
        lines["nightly"][0] == "At 03:00 every day Europe/Zurich"
        and lines["often"][0] == "every 5m"
    )
    assert text_of(pages.get("/schedules")).count("no live worker knows the task") == 2
    page = pages.done("/schedules/often/pause", {"to": "/schedules"})
    assert "Schedule often is paused." in page
    assert "often add paused now by http 127.0.0.1" in text_of(page)
    page = pages.done("/schedules/often/resume", {"to": "/schedules"})
    assert "Schedule often is resumed." in page
    page = pages.done("/schedules/often/run")
    assert "Schedule often has made job 1." in page and "<h1>" in page
    assert "Remove schedule often?" in pages.get("/schedules/often/remove")
    assert list(cells(pages.done("/schedules/often/remove"), "schedule")) == ["nightly"]
    assert pages.send("/schedules/often/pause").status_code == 404
    assert pages.send("/schedules/nightly/reset").status_code == 400


def test_a_schedule_shows_its_last_jobs_as_dots(
    pages: Pages, jobs: JobQueue, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.schedules.add("often", jobs.registry["add"].call(1, 2), every(minutes=5))
    jobs.schedules.add("other", jobs.registry["add"].call(3, 4), every(minutes=5))
    ids = [pages.client.id(1, 2) for _ in range(3)]
    jobs.cancel(ids[1])
    run()
    pages.client.id(1, 2)  # Not a schedule's.
    assert 'class="dots' not in pages.get("/schedules")
    with jobs.store.write() as connection:
        for_ = datetime(2026, 11, 28, 12, 5, tzinfo=UTC)
        connection.execute(
            update(tables.jobs).where(tables.jobs.c.id.in_(ids)).values(scheduled_for=for_)
        )
    page = pages.get("/schedules")
    found = re.findall(r'class="state (\w+)" href="[./]*jobs/(\d+)" title="([^"]+)"', page)
    said = ["succeeded", "cancelled", "succeeded"]
    assert found == [
        ("off" if state == "cancelled" else "ok", str(id_), f"{state}, for 2026-11-28 12:05 UTC")
        for id_, state in zip(ids, said, strict=True)
    ]
    monkeypatch.setattr(schedule_runs, "NEWEST", 2)
    assert 'class="dots' not in pages.get("/schedules")


def test_plain_sql_may_have_written_any_schedule(pages: Pages, jobs: JobQueue) -> None:
    jobs.schedules.add("odd", jobs.registry["add"].call(1, 2), cron("0 3 * * *"))
    for expression in ("<b>never</b>", "99 99 * * *", "* * * * * *"):
        with jobs.store.write() as connection:
            connection.exec_driver_sql(f"UPDATE jobqueue_schedules SET expression = '{expression}'")
        assert "odd" in cells(pages.get("/schedules"), "schedule")


# Log


def test_the_log_says_who_did_what_and_undoes_it(pages: Pages, jobs: JobQueue) -> None:
    ids = [pages.client.id(n, n, queue="mail") for n in range(3)]
    pages.done("/queues/mail/pause", {"to": "/"})
    pages.done("/jobs/cancel", {"id": ",".join(map(str, ids[:2]))})
    page = pages.get("/log")
    said = text_of(page)
    assert (
        f"cancel jobs {ids[0]}, {ids[1]} 2 http 127.0.0.1" in said and "pause queue mail 1" in said
    )
    assert page.count("Undo</button>") == 1
    page = pages.done("/log/1/undo", {"to": "/log"})
    assert "Undone: resume queue mail." in page
    assert re.findall(r'formaction="./log/(\d+)/undo"', page) == ["3"]
    assert Monitor(jobs.store).bounded_queues()[0]["paused"] is False


def test_the_log_shows_what_was_replaced_and_puts_it_back(pages: Pages, jobs: JobQueue) -> None:
    id_ = pages.client.id(1, 2, queue="mail")
    pages.send("/queues/mail/limit", {"limit": "4"})
    pages.send("/queues/mail/limit", {"limit": "10"})
    pages.send("/queues/mail/rate", {"rate": "5/30s"})
    pages.send(f"/jobs/{id_}/update", {"new_priority": "7"})
    lines = re.findall(r'<tr id="action-\d+">(.*?)</tr>', pages.get("/log"), re.DOTALL)
    found = [[text_of(cell).strip() for cell in line.split("</td>")] for line in lines]
    assert [(what, about, undo) for _, what, about, _, _, undo, *_ in found] == [
        ("update", f"job {id_}, priority 0 → 7", "Undo"),
        ("rate", "queue mail, rate none → 5/30s", "Undo"),
        ("limit", "queue mail, limit 4 → 10", "Undo"),
        ("limit", "queue mail, limit none → 4", "changed since"),
    ]
    assert f"update http 127.0.0.1: job {id_}, priority 0 → 7" in text_of(pages.get(f"/jobs/{id_}"))
    page = pages.done("/log/2/undo", {"to": "/log"})
    assert "Undone: limit queue mail, limit 10 → 4." in page
    assert Monitor(jobs.store).bounded_queues()[0]["max_running"] == 4
    QueueControl(jobs.store).limit("mail", 9)
    page = text_of(pages.done("/log/5/undo", {"to": "/log"}))
    assert (
        "Action 5 (limit: queue mail, limit 10 → 4) is not undone: what it set was changed since, "
        "by a program or SQL." in page
    )
    assert Monitor(jobs.store).bounded_queues()[0]["max_running"] == 9
    assert pages.send("/log/99/undo").status_code == 404
    assert pages.send("/log/x/undo").status_code == 400


def test_a_long_log_has_pages(
    pages: Pages, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobqueue.web.pages.log.PAGE", 2)
    pages.client.id(1, 2, queue="mail")
    for _ in range(3):
        pages.send("/queues/mail/pause")
        pages.send("/queues/mail/resume")
    ids, path = [], "/log"
    while path:
        page = pages.get(path)
        ids += [int(id_) for id_ in re.findall(r'id="action-(\d+)"', page)]
        older = re.search(r'href="\.(/log\?before=\d+)"', page)
        path = older[1] if older else ""
    assert ids == [6, 5, 4, 3, 2, 1]
    assert pages.client.get("/log?before=x").status_code == 400


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"ids": [7]}, "job 7"),
        ({"ids": [1, 2, 3, 4, 5, 6, 7], "more_ids": 93}, "jobs 1, 2, 3, 4, 5, and 95 more"),
        ({"all": True}, "all jobs"),
        ({"state": "failed", "task": "add"}, "state failed, task add"),
        ({"queue": "mail", "limit": 4}, "queue mail, limit 4"),
    ],
)
def test_what_an_action_was_about_is_said_in_words(target: dict[str, Any], said: str) -> None:
    assert about({"target": target, "before": None}) == said


# Errors


def test_errors_are_grouped_and_the_jobs_of_one_are_retried(
    pages: Pages, jobs: JobQueue, run: Run
) -> None:
    for n in range(3):
        pages.client.id(f"no {n}", task="fail")

    @jobs.task(max_attempts=1)
    def other() -> None:
        raise KeyError("x")

    kept = other.enqueue()
    run()
    page = pages.get("/errors")
    rows = re.findall(r'<tr id="error-(\w+)">(.*?)</tr>', page, re.DOTALL)
    said = {text_of(row).split()[0]: text_of(row) for _, row in rows}
    assert re.search(r"ValueError no \d 3 3 3 3", said["fail"]) and "KeyError" in said["other"]
    (of_fail,) = [id_ for id_, row in rows if "ValueError" in row]
    listed = pages.get(f"/jobs?error={of_fail}")
    assert len(ids_in(listed)) == 3 and "Jobs whose last error was" in text_of(listed)
    assert "Retry 3 jobs" in pages.get(f"/jobs/retry?all=yes&state=failed&error={of_fail}")
    page = pages.done("/jobs/retry", {"all": "yes", "state": "failed", "error": of_fail})
    assert "Retried 3 jobs." in page and kept.state == "failed"
    assert "No attempt has errored" not in pages.get("/errors?since=1h")
    assert pages.client.get("/errors?since=2h").status_code == 400
    assert pages.client.get("/jobs?error=zz").status_code == 400
