"""The database is away for everyone, for longer than any lease: no worker dies of it, and no job runs twice."""

import resource
from contextlib import contextmanager

import pytest
from processes import ProcessScenario, app
from sqlalchemy import text

pytestmark = [pytest.mark.slow, pytest.mark.rerun_on_stall]
LEASE = 1.5
LONG, SHORT = 4, 100


@pytest.fixture
def url(url: str, backend_name: str, request) -> str:
    """As everywhere, but on Postgres in a server that may be stopped."""
    return request.getfixturevalue("own_postgres").url if backend_name == "postgres" else url


@pytest.fixture
def outage(scenario: ProcessScenario, request):
    """A context in which nobody can write to the database."""

    @contextmanager
    def locked():
        with scenario.engine.connect() as connection:
            connection.execute(text("BEGIN IMMEDIATE"))
            yield
            connection.rollback()

    @contextmanager
    def stopped():
        server = request.getfixturevalue("own_postgres")
        scenario.jobs.close()
        server.stop("immediate")
        yield
        server.start()

    return locked if scenario.on_sqlite else stopped


def test_after_an_outage_of_three_leases_every_job_has_run_once(
    scenario: ProcessScenario, outage, wait_until
) -> None:
    effects = scenario.effects
    workers = scenario.workers(2, lease=LEASE, concurrency=4)
    long = scenario.many("hold", [("finish",)] * LONG)
    wait_until(lambda: len(effects.read("started")) == LONG)
    short = scenario.many("work", [(0.02,)] * (SHORT // 2))
    short += scenario.many(
        "hold", [("finish",)] * (SHORT // 2)
    )  # Never all done before the outage.
    wait_until(lambda: len(effects.read("finished")) > SHORT // 10)
    with outage():
        began = app.boottime()
        effects.open_gate("finish")  # These handlers end while there is nobody to tell.
        wait_until(lambda: {effect.job for effect in effects.read("ended")} >= set(long))
        wait_until(lambda: app.boottime() - began > 3 * LEASE)
        done_by_then = len(effects.read("finished")) + len(effects.read("ended")) - LONG
    assert done_by_then < SHORT
    back_at = app.boottime()
    wait_until(scenario.ended(LONG + SHORT))
    assert all(worker.alive for worker in workers)
    starts = [effect.job for effect in effects.read("started")]
    assert sorted(starts) == sorted(long + short)
    assert scenario.rows("SELECT * FROM jobqueue_attempts") == []
    for id_ in long:
        (ended,) = effects.read("ended", job=id_)
        assert ended.at < back_at
        assert scenario.record(id_).result == str(ended.fence)
    # Both go on at work: so many jobs at a time need both.
    scenario.many("hold", [("more",)] * 8)
    wait_until(lambda: len(effects.read("started")) == LONG + SHORT + 8)
    effects.open_gate("more")
    for worker in workers:
        worker.terminate()
    assert [worker.wait() for worker in workers] == [0, 0]


def test_short_outages_of_about_a_lease_end_no_lease_either(
    scenario: ProcessScenario, wait_until
) -> None:
    effects = scenario.effects
    scenario.workers(2, lease=1, concurrency=2)
    ids = scenario.many("hold", [("finish",)] * 4)
    wait_until(lambda: len(effects.read("started")) == len(ids))
    for length in (1.0, 1.1, 1.2):
        with scenario.nobody_writes():
            began = app.boottime()
            wait_until(lambda: app.boottime() - began > length)
        beats = dict(scenario.rows("SELECT id, heartbeats FROM jobqueue_workers"))
        wait_until(
            lambda: all(
                beat > beats[id_] + 1
                for id_, beat in scenario.rows("SELECT id, heartbeats FROM jobqueue_workers")
            )
        )
    effects.open_gate("finish")
    wait_until(scenario.ended(len(ids)))
    assert len(effects.read("started")) == len(ids)
    assert scenario.rows("SELECT * FROM jobqueue_attempts") == []


# Everybody can read, and nobody can write


FILE_MAX = 64 * 1024
"""Bytes that a file of a process may have while its disk is full: enough for its log and its effects, and not for the WAL."""


@pytest.fixture
def nobody_beats(scenario: ProcessScenario):
    """A context in which every row can be read, and no worker's row can be written.

    On SQLite the kernel refuses the workers to write where the WAL goes on, as it does on a full disk. On Postgres the table is
    locked as it is while an index is made.
    """

    @contextmanager
    def full(snapshot):
        snapshot.execute(
            text("BEGIN")
        )  # While it is held the WAL does not begin again at its head.
        snapshot.execute(text("SELECT count(*) FROM jobqueue_jobs")).all()
        while (size := (scenario.folder / "jobqueue.db-wal").stat().st_size) < 2 * FILE_MAX:
            scenario.jobs.registry["nop"].options(delay=3600).enqueue()
            assert (scenario.folder / "jobqueue.db-wal").stat().st_size > size
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        for process in scenario.processes:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FILE_MAX, unlimited[1]))
        yield
        for process in scenario.processes:
            if process.alive:
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)

    @contextmanager
    def locked(connection):
        connection.execute(text("LOCK TABLE jobqueue_workers IN SHARE MODE"))
        yield

    @contextmanager
    def nobody_beats():
        with scenario.engine.connect() as connection:
            with (full if scenario.on_sqlite else locked)(connection):
                yield
            connection.rollback()

    return nobody_beats


def test_who_can_read_and_not_write_ends_nobodys_lease(
    scenario: ProcessScenario, nobody_beats, wait_until
) -> None:
    effects = scenario.effects
    workers = scenario.workers(4, lease=LEASE, concurrency=2)
    ids = scenario.many("hold", [("finish",)] * 8)
    wait_until(lambda: len(effects.read("started")) == len(ids))
    leases = set(scenario.beats())
    for share in (
        0.7,
        0.8,
        0.9,
        1.0,
        1.1,
        3.0,
    ):  # From the last beats to the end it is a lease, or more.
        with nobody_beats():
            began = app.boottime()
            wait_until(lambda: app.boottime() - began > share * LEASE / 2)
            beats = scenario.beats()  # Not at once: a commit may have been on its way.
            wait_until(lambda: app.boottime() - began > share * LEASE)
            assert scenario.beats() == beats
        wait_until(scenario.beaten(2))
        assert set(scenario.beats()) == leases
    effects.open_gate("finish")
    wait_until(scenario.ended(len(ids)))
    assert all(worker.alive for worker in workers)
    assert len(effects.read("started")) == len(ids)
    assert scenario.rows("SELECT * FROM jobqueue_attempts") == []


def test_a_worker_that_died_while_nobody_could_write_is_noticed_afterwards(
    scenario: ProcessScenario, nobody_beats, wait_until
) -> None:
    effects = scenario.effects
    dead, alive = scenario.workers(2, lease=1, concurrency=1)
    ids = scenario.many("hold", [("finish",)] * 2)
    wait_until(lambda: len(effects.read("started")) == len(ids))
    (lost,) = effects.read("started", pid=dead.pid)
    with (
        scenario.engine.begin() as connection
    ):  # As if it was on another host: silence alone counts.
        connection.execute(
            text(f"UPDATE jobqueue_workers SET boot_id = 'elsewhere' WHERE pid = {dead.pid}")
        )
    with nobody_beats():
        dead.kill()
        began = app.boottime()
        wait_until(lambda: app.boottime() - began > 3)
        assert len(scenario.beats()) == 2
    effects.open_gate("finish")
    wait_until(lambda: len(effects.read("started", job=lost.job)) > 1, 3 * (1 + 2))
    wait_until(scenario.ended(len(ids)))
    assert alive.alive
    assert len(effects.read("started")) == len(ids) + 1
