"""A whole worker with its threads, on both databases."""

import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from jobqueue import JobCancelled, JobFailed, JobQueue, Snooze, State, current_job, fixed
from jobqueue.errors import InvalidOption, SchemaOutdated
from jobqueue.store.leases import Leases
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.store.stats import Monitor
from jobqueue.worker.assembly import WorkerParts
from tests.worker.conftest import Stepped

WARNING = 30
SOON = fixed(0.05)


def test_a_worker_runs_jobs_and_their_results_come_back(jobs: JobQueue) -> None:
    @jobs.task
    def add(x: int, y: int) -> int:
        return x + y

    before = [add.enqueue(n, n) for n in range(20)]
    with jobs.worker(concurrency=3, name="mia"):
        during = [add.enqueue(n, 1) for n in range(20)]
        assert [job.result(30) for job in before] == [2 * n for n in range(20)]
        assert [job.result(30) for job in during] == [n + 1 for n in range(20)]
        assert before[0].record().worker == "mia"
        assert [row["worker"] for row in Monitor(jobs.store).workers()] == ["mia"]
    assert Monitor(jobs.store).workers() == [], "a lease is given back in the end"


@pytest.mark.parametrize("step", [(Leases, "register"), (WorkerParts, "_observers")])
def test_a_start_that_fails_leaves_nothing_open(
    jobs: JobQueue, monkeypatch: pytest.MonkeyPatch, step: tuple[type, str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no start")

    monkeypatch.setattr(*step, fail)
    workers, opened = [], []
    for _ in range(4):
        workers.append(jobs.worker())  # Kept, so that no collection closes what they hold.
        with pytest.raises(RuntimeError, match="no start"):
            workers[-1].start()
        opened.append(len(list(Path("/proc/self/fd").iterdir())))
    assert max(opened) == opened[0]  # Another test's may still close some.
    assert workers[0].stop(0), "it has nothing to stop"


def test_64_blocking_jobs_run_at_the_same_time(jobs: JobQueue) -> None:
    everyone = threading.Barrier(64)

    @jobs.task(max_attempts=1)
    def meet() -> None:
        everyone.wait(timeout=30)  # Raises unless all 64 are there.

    handles = jobs.enqueue_many(meet.call() for _ in range(3 * 64))
    with jobs.worker(concurrency=64):
        for handle in handles:
            handle.result(60)
    assert {handle.record().attempt for handle in handles} == {1}


def test_a_job_is_tried_again_until_it_fails_with_an_error_for_each_attempt(
    jobs: JobQueue,
) -> None:
    @jobs.task(max_attempts=3, backoff=SOON)
    def boom() -> None:
        raise ValueError(f"attempt {current_job().attempt}")

    with jobs.worker(poll=0.1):
        handle = boom.enqueue()
        with pytest.raises(JobFailed, match="after 3 attempt") as caught:
            handle.result(30)
    assert [error.message for error in caught.value.errors] == [
        "attempt 1",
        "attempt 2",
        "attempt 3",
    ]
    assert all("in boom" in error.traceback for error in caught.value.errors)


def test_a_worker_that_finds_no_thread_for_a_part_of_it_does_not_begin(
    jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def start_some(thread: threading.Thread) -> None:
        if thread.name == "jobqueue-reaper":
            raise RuntimeError("can't start new thread")
        start(thread)

    @jobs.task
    def work() -> None: ...

    job = work.enqueue()
    before = set(threading.enumerate())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_some)
        with pytest.raises(RuntimeError, match="new thread"), jobs.worker():
            pass
    assert not {each for each in threading.enumerate() if each not in before and each.is_alive()}
    assert (job.state, job.record().attempt) == (State.AVAILABLE, 0)
    with jobs.worker():
        job.result(30)


def test_a_delayed_job_runs_when_it_is_due_and_a_snoozed_one_later(jobs: JobQueue) -> None:
    seen: list[int] = []

    @jobs.task(max_attempts=2)
    def sleepy() -> int:
        seen.append(current_job().attempt)
        if len(seen) < 3:
            raise Snooze(0.05)
        return len(seen)

    @jobs.task
    def work() -> bool:
        record = jobs.get(current_job().id).record()
        return record.started_at is not None and record.started_at >= record.run_at

    with jobs.worker(poll=0.1):
        delayed, snoozed = work.options(delay=0.2).enqueue(), sleepy.enqueue()
        assert delayed.result(30) is True
        assert snoozed.result(30) == 3
    assert seen == [1, 1, 1]


def test_waiting_and_running_jobs_can_be_cancelled(jobs: JobQueue, wait_until: Any) -> None:
    began, ended = threading.Event(), threading.Event()

    @jobs.task
    def long() -> None:
        began.set()
        job = current_job()
        while not ended.wait(0.01):
            job.check()

    with jobs.worker(concurrency=1, lease=600):
        running = long.enqueue()
        assert began.wait(30)
        waiting, delayed = long.enqueue(), long.options(delay=60).enqueue()
        for handle in (waiting, delayed, running):
            handle.cancel()
        assert waiting.state is delayed.state is State.CANCELLED
        try:
            with pytest.raises(JobCancelled):
                running.result(60)  # A beat would come after 200 s: it is told by a look.
        finally:
            ended.set()
    assert waiting.record().attempt == 0


def test_a_drain_ends_by_itself_when_all_is_done(jobs: JobQueue, lines: Any) -> None:
    @jobs.task(max_attempts=2, backoff=SOON)
    def flaky(n: int) -> int:
        if n % 5 == 0 and current_job().attempt == 1:
            raise ValueError("not yet")
        return n

    handles = jobs.enqueue_many([flaky.call(n) for n in range(100)])
    paused, later = flaky.options(queue="mail").enqueue(1), flaky.options(delay=60).enqueue(1)
    jobs.pause("mail")
    with jobs.worker(drain=True, poll=0.2) as worker:
        assert worker.wait(60)
    assert [handle.result(0) for handle in handles] == list(range(100))
    assert (paused.state, later.state) == (State.AVAILABLE, State.SCHEDULED)
    assert len(lines(WARNING, "not waited for")) == 2


def test_a_worker_with_max_jobs_ends_after_so_many(jobs: JobQueue) -> None:
    @jobs.task
    def work() -> None: ...

    jobs.enqueue_many([work.call() for _ in range(50)])
    with jobs.worker(max_jobs=7) as worker:
        assert worker.wait(30)
        assert worker.stop()
        assert worker.processed == 7
    states = [record.state for record in jobs.list(limit=None)]
    assert states.count(State.SUCCEEDED) == 7
    assert states.count(State.AVAILABLE) == 43


def test_subscribers_and_middleware_see_every_attempt(jobs: JobQueue, wait_until: Any) -> None:
    heard: list[tuple[str, int]] = []
    around: list[int] = []
    for name in ("succeeded", "failed", "errored"):
        jobs.on(name, lambda event: heard.append((event.name, event.attempt)))

    @jobs.use
    def count(context: Any, run: Any) -> Any:
        around.append(context.attempt)
        return run()

    @jobs.task(max_attempts=2, backoff=SOON)
    def work(fails: bool) -> None:
        if fails:
            raise ValueError("no")

    with jobs.worker(poll=0.1):
        for job in jobs.as_completed([work.enqueue(False), work.enqueue(True)], timeout=30):
            assert job.done()
    assert sorted(heard) == [("errored", 1), ("errored", 2), ("failed", 2), ("succeeded", 1)]
    assert sorted(around) == [1, 1, 2]


def test_a_stop_gives_back_what_was_claimed_and_has_not_begun(
    jobs: JobQueue, wait_until: Any
) -> None:
    ended, began = threading.Event(), threading.Event()

    @jobs.task
    def work(blocks: bool) -> bool:
        if blocks:
            began.set()
            ended.wait(30)
        return blocks

    first = jobs.enqueue_many([work.call(False) for _ in range(200)])
    blocking = work.enqueue(True)
    rest = jobs.enqueue_many([work.call(False) for _ in range(300)])
    worker = jobs.worker(concurrency=1)
    worker.start()
    try:
        assert began.wait(30)
        stopper = threading.Thread(target=worker.stop)
        stopper.start()
        inflight = worker._inflight  # All has gone back but what the one slot runs.
        wait_until(lambda: inflight.closing and set(inflight.held) == {blocking.id})
    finally:
        ended.set()
    stopper.join(30)
    assert worker.stop(), "all ended in order"
    assert blocking.result(0) is True
    for record in jobs.list(limit=None):
        if record.id > blocking.id:
            assert (record.state, record.attempt) == (State.AVAILABLE, 0)
        else:
            assert record.state is State.SUCCEEDED
    assert len(first) + len(rest) == 500


@pytest.mark.parametrize("answers", [True, False])
def test_a_worker_that_waits_for_jobs_says_that_it_is_draining_if_the_database_answers(
    jobs: JobQueue, wait_until: Any, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    ended, began, asked = threading.Event(), threading.Event(), threading.Event()
    note = Leases.note_stop

    def note_stop(leases: Leases, worker: int) -> None:
        if answers:
            note(leases, worker)
        asked.set()
        if not answers:
            raise OperationalError("UPDATE", None, Exception("it is away"))

    @jobs.task
    def work() -> None:
        began.set()
        ended.wait(30)

    monkeypatch.setattr(Leases, "note_stop", note_stop)
    work.enqueue()
    worker = jobs.worker()
    worker.start()
    assert began.wait(30)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    assert asked.wait(30)
    (row,) = Monitor(jobs.store).workers()
    assert bool(row["stopping_at"]) is answers
    ended.set()
    stopper.join(30)
    assert worker.stop(), "all ended in order"
    assert Monitor(jobs.store).workers() == []


def test_two_workers_in_one_process_share_the_work_and_do_nothing_twice(jobs: JobQueue) -> None:
    runs: list[int] = []

    @jobs.task
    def work(n: int) -> None:
        runs.append(n)

    handles = jobs.enqueue_many([work.call(n) for n in range(400)])
    with jobs.worker(name="one"), jobs.worker(name="two"):
        for _ in jobs.as_completed(handles, timeout=60):
            pass
    assert sorted(runs) == list(range(400))


def test_an_embedded_worker_stops_when_the_program_raises(jobs: JobQueue) -> None:
    @jobs.task
    def work() -> int:
        return 1

    before = set(threading.enumerate())
    with pytest.raises(KeyError), jobs.worker():
        assert work.enqueue().result(30) == 1
        raise KeyError("the program's own")
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert left <= {
        "jobqueue-notifier",
        "jobqueue-idle",
        "jobqueue-lock",
    }  # The queue's own; the latter for a moment.


@pytest.mark.databases("sqlite")
def test_a_worker_whose_file_was_replaced_stops_and_says_why(jobs: JobQueue, url: str) -> None:
    @jobs.task
    def work() -> int:
        return 1

    file = Path(url.removeprefix("sqlite:///"))
    with jobs.worker(poll=0.05, lease=1) as worker:  # A heartbeat notices.
        assert work.enqueue().result(30) == 1
        with JobQueue(f"sqlite:///{file}.new") as another:
            another.store.require_schema(makes=True)
        Path(f"{file}.new").rename(file)
        assert worker.wait(30)
    assert worker.failure is not None and "deleted or replaced" in worker.failure


def test_a_worker_may_be_stopped_twice_and_before_it_has_begun_to_work(jobs: JobQueue) -> None:
    worker = jobs.worker()
    worker.start()
    assert worker.stop()
    assert worker.stop()


@pytest.mark.parametrize(
    "settings",
    [
        {"concurrency": 0},
        {"concurrency": "4"},
        {"concurrency": True},
        {"concurrency": 10_000},
        {"queues": ""},
        {"queues": "mail:0"},
        {"queues": "mail:" + "1" * 5000},
        {"queues": "mail,mail"},
        {"queues": "a b"},
        {"queues": 5},
        {"lease": 0.5},
        {"lease": -1},
        {"lease": float("nan")},
        {"poll": 0},
        {"shutdown_timeout": -1},
        {"max_jobs": 0},
        {"max_snoozes": 0},
        {"drain": "yes"},
        {"name": ""},
        {"name": "a\nb"},
        {"name": "a b"},
        {"keep_succeeded": -1},
        {"concurency": 4},
    ],
)
def test_a_setting_that_is_wrong_is_named_before_anything_begins(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption) as caught:
        JobQueue("sqlite:///never-made.db").worker(**settings)
    assert next(iter(settings))[:4] in str(caught.value)


@pytest.mark.parametrize(
    "queues", ["a,b", ("a", "b"), {"a": 1, "b": 2}.keys(), {"a": None, "b": None}, iter("ab")]
)
def test_queues_may_be_text_names_or_a_mapping(queues: Any) -> None:
    worker = JobQueue("sqlite:///never-made.db").worker(queues=queues)
    assert worker.settings.queues == {"a": None, "b": None}


@pytest.mark.parametrize("setting", ["concurrency", "lease", "poll", "drain", "max_snoozes"])
def test_none_is_no_setting_where_it_means_nothing(setting: str) -> None:
    with pytest.raises(InvalidOption, match=setting):
        JobQueue("sqlite:///never-made.db").worker(**{setting: None})


@pytest.mark.databases("postgres")
def test_a_worker_on_a_database_without_the_schema_says_what_to_do(
    empty_url: str, backend_name: str
) -> None:
    with JobQueue(empty_url) as queue, pytest.raises(SchemaOutdated, match="jobqueue db upgrade"):
        queue.worker().start()


@pytest.mark.databases("sqlite")
def test_a_worker_on_a_new_file_makes_the_schema(empty_url: str, backend_name: str) -> None:
    with JobQueue(empty_url) as queue:

        @queue.task
        def work() -> int:
            return 1

        with queue.worker():
            assert work.enqueue().result(30) == 1


def test_memory_does_not_grow_with_the_backlog(jobs: JobQueue) -> None:
    @jobs.task
    def work(n: int) -> int:
        return n

    for _ in range(4):
        jobs.enqueue_many([work.call(n) for n in range(5000)])
    tracemalloc.start()
    try:
        with jobs.worker(max_jobs=1500) as worker:
            assert worker.wait(60)
            sizes = worker._inflight
            batch_max = worker._assembly.store.backend.batch_max
            assert len(sizes.held) <= 4 * batch_max
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


def test_a_job_due_at_a_crash_of_its_worker_runs_on_the_next(
    jobs: JobQueue, stepped: Stepped
) -> None:
    @jobs.task
    def work() -> int:
        return current_job().attempt

    handle = work.enqueue()
    lost = stepped()
    lost.claim()
    lost.execute_sql("DELETE FROM jobqueue_workers")  # as its reaper does
    with jobs.worker():
        assert handle.result(30) == 1, "the attempt was given back"
    with jobs.store.read() as connection:
        crashes = connection.execute(jobs_table.select().where(jobs_table.c.id == handle.id))
        assert crashes.one().crashes <= 1
