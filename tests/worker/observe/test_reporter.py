"""The report and the history of a worker, on both databases."""

import re
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event, select, text, update

from jobqueue import JobQueue, Snooze, current_job, fixed
from jobqueue.store.clock import after, once, this_hour, this_minute
from jobqueue.store.schema import history
from jobqueue.store.history import Figures, History
from jobqueue.store.stats import Monitor
from jobqueue.worker.observe import metrics
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
        assert 0 <= row["p50_duration"] <= row["p95_duration"]
        assert row["avg_wait"] <= row["p95_wait"] and 0 <= row["p50_wait"] <= row["p95_wait"]
    assert (whole["worker"], task["task"]) == ("mia", "work")
    assert 0 <= whole["utilisation"] <= 1
    recorder.record()
    assert rows(jobs, "jobqueue_worker_minutes")[0]["processed"] == 4, "a period is counted once"


def test_the_minutes_of_the_fleet_are_those_of_all_its_workers(jobs: JobQueue) -> None:
    books, monitor = History(jobs.store), Monitor(jobs.store)
    fast = Figures("", 30, 2, 1, 4, 6.0, 0.3, 3.0, 0.2, 6.0, 60.0, 0.1, 0.07)
    slow = Figures("", 10, 0, 0, 0, 34.0, 5.0, 1.0, 0.1, 34.0, 40.0, 3.0, 0.05)
    books.add("fast", [fast, fast._replace(task="work", queue="mail")])
    books.add("slow", [slow, slow._replace(task="work", queue="crm")])
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
        "p50_duration": 0.1,
        "p95_duration": 5.0,
        "avg_wait": 0.1,
        "p50_wait": 0.07,
        "p95_wait": 0.2,
        "utilisation": 0.2,
        "waiting": 0,
    }
    names = ("processed", "p50_duration", "p95_duration", "p50_wait")
    (task,) = monitor.recent_tasks(2)
    assert [task[name] for name in names] == [40, 0.1, 5.0, 0.07]
    (seen,) = rows(jobs, "jobqueue_task_minutes")
    assert [seen[name] for name in names] == [40, 0.1, 5.0, 0.07]
    crm, none = monitor.recent_queue("crm", 2), monitor.recent_queue("other", 2)
    assert [crm[name] for name in names] == [10, 3.0, 5.0, 0.05]
    assert set(none.values()) == {None}
    with jobs.store.write() as connection:
        connection.execute(update(history).values(minute=after(-180.0)))
    assert monitor.minutes(2) == []
    assert monitor.minutes(5) != []


@pytest.mark.parametrize(
    ("medians", "merged"),
    [
        ([(1, 9.0), (1, 1.0), (1, 4.0)], 4.0),
        ([(1, 1.0), (1, 2.0)], 1.0),
        ([(5, 0.1), (1, 3.0), (3, 2.0)], 0.1),
        ([(2, 1.0), (2, 1.0), (3, 3.0)], 1.0),
        ([(50, None), (1, 3.0), (0, None)], 3.0),  # As the version before wrote it; idle.
    ],
)
def test_a_median_of_several_is_the_median_of_theirs_by_attempts(
    jobs: JobQueue, medians: list[tuple[int, float | None]], merged: float
) -> None:
    figures = [
        Figures("work", count, 0, 0, 0, 1.0, 9.0, 1.0, 9.0, duration_p50=median, wait_p50=median)
        for count, median in medians
    ]
    History(jobs.store).add("mia", figures)
    with jobs.store.write() as connection:
        connection.execute(update(history).values(minute=this_minute()))
    (lately,) = Monitor(jobs.store).recent_tasks(2)
    (of_view,) = rows(jobs, "jobqueue_task_minutes")
    for row in (lately, of_view):
        assert (row["p50_duration"], row["p50_wait"]) == (merged, merged)


def test_figures_are_by_queue_up_to_a_number_and_then_by_task_alone(
    work: Any, jobs: JobQueue, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "PAIRS_MAX", 2)
    worker = stepped()
    for queue in ("a", "b", "c", "d"):
        work.options(queue=queue).enqueue()
    worker.step()
    worker.complete()
    worker.service(HistoryWriter).record()
    with jobs.store.read() as connection:
        of_tasks = select(history.c.queue, history.c.processed).where(history.c.task == "work")
        found = dict(map(tuple, connection.execute(of_tasks)))
    assert sorted(found.values()) == [1, 1, 2] and found[None] == 2
    (task,) = Monitor(jobs.store).recent_tasks(2)
    assert task["processed"] == 4


def test_the_first_worker_of_a_minute_counts_what_waits_in_all_queues(
    work: Any, jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A minute may end within the test.
    monkeypatch.setattr("jobqueue.store.history.this_minute", this_hour)
    books, monitor = History(jobs.store), Monitor(jobs.store)
    idle = Figures("", 0, 0, 0, 0, 0.0, None, 0.0, None)

    def counted(minutes_ago: int) -> list[int | None]:
        """What the rows of this minute have, which then becomes another."""
        with jobs.store.write() as connection:
            this = history.c.minute == this_hour()
            found = connection.execute(select(history.c.waiting).where(this).order_by(history.c.id))
            values = list(found.scalars())
            earlier = once(after(-60.0 * minutes_ago))
            connection.execute(update(history).where(this).values(minute=earlier))
        return values

    for queue, key in (("mail", None), ("crm", None), ("crm", "tenant")):
        work.options(queue=queue, concurrency_key=key).enqueue()
    work.options(delay=600).enqueue()
    jobs.pause("crm")
    books.add("mia", [idle, idle, idle._replace(task="work")])
    work.enqueue()
    books.add("leo", [idle])
    books.add("old", [idle._replace(task="work")])
    assert sorted(counted(20), key=str) == [3, None, None, None, None]
    monkeypatch.setattr("jobqueue.store.history.WAITING_MAX", 2)
    books.add("leo", [idle])
    assert counted(10) == [2]
    assert list(monitor.waiting(30).values()) == [3, 2] and len(monitor.waiting(15)) == 1
    assert [row["waiting"] for row in monitor.minutes(30)] == [3, 2]


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
    assert (period.whole.processed, period.tasks["pay", "default"].processed) == (1, 1)
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
