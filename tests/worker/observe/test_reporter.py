"""The report and the history of a worker, on both databases."""

import re
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event, select, text, update

from jobqueue import JobQueue, Snooze, current_job, fixed
from jobqueue.store.clock import after, this_minute
from jobqueue.store.schema import history
from jobqueue.store.history import Figures, History
from jobqueue.store.stats import Monitor
from jobqueue.worker.observe.history import HistoryWriter
from jobqueue.worker.observe.reporter import Reporter
from tests.worker.conftest import Stepped


@pytest.fixture
def work(jobs: JobQueue) -> Any:
    @jobs.task(backoff=fixed(600), name="work")
    def work(how: str = "well") -> None:
        if how == "ill":
            raise ValueError
        if how == "later":
            raise Snooze(600)

    return work


def rows(jobs: JobQueue, view: str) -> list[dict[str, Any]]:
    with jobs.store.read() as connection:
        return [dict(row) for row in connection.execute(text(f"SELECT * FROM {view}")).mappings()]


def due(service: Any) -> None:
    service._due = float("-inf")


def test_the_report_is_one_line_per_interval(work: Any, stepped: Stepped, lines: Any) -> None:
    worker = stepped(stats_interval=10)
    reporter = worker.service(Reporter)
    work.enqueue()
    work.enqueue("ill")
    work.enqueue("later")
    worker.step()
    for _ in range(3):
        work.enqueue()
    assert 0 < reporter.tick() <= 10
    assert lines(part="jobs in") == []
    due(reporter)
    reporter.tick()
    (line,) = lines(part="jobs in")
    assert re.search(
        r"3 jobs in \S+ m?s \(\d[\d.]*/s\), 1 errored, 1 snoozed, 0 running of 4 \(\d+% busy\), "
        r"3 waiting, took \S+ m?s \(p95 \S+ m?s\), waited \S+ m?s \(p95 \S+ m?s\); 3 in all$",
        line,
    ), line
    reporter.tick()
    assert len(lines(part="jobs in")) == 1
    work.enqueue()
    worker.inflight.processed = 1_003
    due(reporter)
    reporter.tick()
    second = lines(part="jobs in")[1]
    assert second.startswith("0 jobs in "), "each report is of its own time"
    assert ", 0 errored, 0 running" in second
    assert second.endswith(", 4 waiting; 1,003 in all")
    for _ in range(2):  # What waits, and then one more.
        worker.step()
        work.enqueue()
        due(reporter)
        reporter.tick()
    assert lines(part="job in")[0].startswith("1 job in ")


def test_an_idle_worker_reports_a_change_and_else_once_in_five_minutes(
    work: Any, stepped: Stepped, lines: Any
) -> None:
    reporter = stepped(stats_interval=10).service(Reporter)

    def reports(times: int = 1) -> int:
        before = len(lines(part="jobs in"))
        for _ in range(times):
            due(reporter)
            reporter.tick()
        return len(lines(part="jobs in")) - before

    assert reports(3) == 0, "nothing has happened yet"
    work.options(queue="other").enqueue()
    assert reports(3) == 1
    reporter._reported_at -= 300
    assert reports(3) == 1
    reporter._inflight.running[1, 1] = SimpleNamespace(is_coroutine=True)
    assert reports(3) == 3, "it is not idle"
    del reporter._inflight.running[1, 1]


def test_the_report_advises(work: Any, stepped: Stepped, lines: Any) -> None:
    worker = stepped(stats_interval=10)
    reporter = worker.service(Reporter)
    work.enqueue()
    reporter._inflight._busy += 1e6
    due(reporter)
    reporter.tick()
    assert lines(30, "slots 100% busy, queue growing") != []


def test_the_history_tells_what_each_worker_and_task_did_in_each_minute(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = stepped(name="mia")
    for how in ("well", "well", "ill", "later"):
        work.enqueue(how)
    worker.step()
    worker.complete()
    recorder = worker.service(HistoryWriter)
    recorder.record()
    (whole,) = rows(jobs, "jobqueue_worker_minutes")
    (task,) = rows(jobs, "jobqueue_task_minutes")
    for row in (whole, task):
        assert (row["processed"], row["errored"], row["failed"], row["snoozed"]) == (4, 1, 0, 1)
        assert 0 <= row["avg_duration"] <= row["p95_duration"] < 60
        assert row["avg_wait"] <= row["p95_wait"]
    assert (whole["worker"], task["task"]) == ("mia", "work")
    assert 0 <= whole["utilisation"] <= 1
    recorder.record()
    assert rows(jobs, "jobqueue_worker_minutes")[0]["processed"] == 4, "a period is counted once"


def test_the_minutes_of_the_fleet_are_those_of_all_its_workers(jobs: JobQueue) -> None:
    books, monitor = History(jobs.store), Monitor(jobs.store)
    fast = Figures("", 30, 2, 1, 4, 6.0, 0.3, 3.0, 0.2, busy=6.0, slots=60.0)
    slow = Figures("", 10, 0, 0, 0, 34.0, 5.0, 1.0, 0.1, busy=34.0, slots=40.0)
    books.add("fast", [fast, fast._replace(task="work")])
    books.add("slow", [slow, slow._replace(task="work")])
    books.add("idle", [Figures("", 0, 0, 0, 0, 0.0, None, 0.0, None, busy=0.0, slots=100.0)])
    with jobs.store.write() as connection:  # Another one may have begun meanwhile.
        connection.execute(update(history).values(minute=this_minute()))
    (minute,) = monitor.minutes(2)
    assert minute.pop("minute").second == 0
    assert minute == {
        "workers": 3,
        "processed": 40,
        "errored": 2,
        "failed": 1,
        "snoozed": 4,
        "avg_duration": 1.0,
        "p95_duration": 5.0,
        "avg_wait": 0.1,
        "p95_wait": 0.2,
        "utilisation": 0.2,
    }
    with jobs.store.write() as connection:
        connection.execute(update(history).values(minute=after(-180.0)))
    assert monitor.minutes(2) == []
    assert monitor.minutes(5) != []


def test_what_a_refused_transaction_counted_is_not_recorded(
    work: Any, jobs: JobQueue, stepped: Stepped
) -> None:
    worker = stepped()
    work.enqueue()
    worker.claim()
    worker.execute()
    with pytest.raises(ZeroDivisionError), jobs.store.write() as connection:
        worker.writer.gather()
        worker.writer.write(connection)
        raise ZeroDivisionError
    worker.complete()
    worker.service(HistoryWriter).record()
    assert rows(jobs, "jobqueue_worker_minutes")[0]["processed"] == 1


def test_the_duration_of_a_job_that_finishes_within_a_transaction_has_its_commit_everywhere(
    jobs: JobQueue, stepped: Stepped
) -> None:
    @jobs.task
    def pay() -> None:
        with jobs.store.engine.begin() as connection:
            event.listen(connection, "commit", lambda _: threading.Event().wait(0.1))
            current_job().finish_within(connection)

    worker = stepped()
    reader = worker.assembly.metrics.window()
    pay.enqueue()
    worker.step()
    period = reader.take()
    assert (period.whole.processed, period.tasks["pay"].processed) == (1, 1)
    (of_task,), (of_minute,) = rows(jobs, "jobqueue_task_stats"), rows(jobs, "jobqueue_throughput")
    assert (of_task["succeeded"], of_minute["succeeded"]) == (1, 1)
    durations = {
        period.whole.duration,
        of_task["avg_duration"],
        of_task["max_duration"],
        of_minute["avg_duration"],
    }
    assert len(durations) == 1 and min(durations) >= 0.1


def test_a_batch_that_was_written_one_by_one_is_measured_whole(work: Any, stepped: Stepped) -> None:
    worker = stepped()
    reader = worker.assembly.metrics.window()
    for _ in range(3):
        work.enqueue()
    worker.claim()
    worker.execute()
    worker.writer.gather()
    worker.writer.one_by_one()
    assert reader.take().whole.processed == 3


def test_figures_that_could_not_be_written_are_offered_again(
    work: Any, jobs: JobQueue, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = stepped()
    recorder = worker.service(HistoryWriter)
    work.enqueue()
    worker.step()
    worker.complete()
    with monkeypatch.context() as away:
        away.setattr(recorder._history, "add", lambda *_: 1 / 0)
        due(recorder)
        recorder.round()
        assert recorder.failing
        recorder.round()
        assert len(recorder._unwritten) == 2, (
            "of a worker and its task: a short period is not a new one"
        )
    recorder.round()
    assert sum(row["processed"] for row in rows(jobs, "jobqueue_worker_minutes")) == 1


def test_a_worker_records_its_last_words(work: Any, jobs: JobQueue) -> None:
    with jobs.worker(name="mia"):
        work.enqueue().result(30)
    assert sum(row["processed"] for row in rows(jobs, "jobqueue_worker_minutes")) == 1


def test_the_history_is_kept_for_a_day(jobs: JobQueue, stepped: Stepped) -> None:
    recorder = stepped().service(HistoryWriter)
    recorder.record()
    recorder.record()
    with jobs.store.write() as connection:
        first = select(history.c.id).order_by(history.c.id).limit(1).scalar_subquery()
        connection.execute(
            update(history).where(history.c.id == first).values(minute=after(-86_500.0))
        )
    recorder.record()
    with jobs.store.read() as connection:
        assert len(connection.execute(select(history.c.id)).all()) == 2
