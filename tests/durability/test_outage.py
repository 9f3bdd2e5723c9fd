"""The database is away for everyone, for longer than any lease: no worker dies of it, and no job runs twice."""

from contextlib import contextmanager

import pytest
from processes import Scene, app
from sqlalchemy import text

pytestmark = pytest.mark.lease_of_a_second
LEASE = 1.5
LONG, SHORT = 4, 100


@pytest.fixture
def url(url: str, backend_name: str, request) -> str:
    """As everywhere, but on Postgres in a server that may be stopped."""
    return request.getfixturevalue("own_postgres").url if backend_name == "postgres" else url


@pytest.fixture
def outage(scene: Scene, request):
    """A context in which nobody can write to the database."""

    @contextmanager
    def locked():
        with scene.engine.connect() as connection:
            connection.execute(text("BEGIN IMMEDIATE"))
            yield
            connection.rollback()

    @contextmanager
    def stopped():
        server = request.getfixturevalue("own_postgres")
        scene.jobs.close()
        server.stop("immediate")
        yield
        server.start()

    return locked if scene.on_sqlite else stopped


def test_after_an_outage_of_three_leases_every_job_has_run_once(
    scene: Scene, outage, wait_until
) -> None:
    effects = scene.effects
    workers = scene.workers(2, lease=LEASE, concurrency=4)
    long = scene.many("hold", [("finish",)] * LONG)
    wait_until(lambda: len(effects.read("started")) == LONG)
    short = scene.many("work", [(0.02,)] * (SHORT // 2))
    short += scene.many("hold", [("finish",)] * (SHORT // 2))  # Never all done before the outage.
    wait_until(lambda: len(effects.read("finished")) > SHORT // 10)
    with outage():
        began = app.boottime()
        effects.open_gate("finish")  # These handlers end while there is nobody to tell.
        wait_until(lambda: {effect.job for effect in effects.read("ended")} >= set(long))
        wait_until(lambda: app.boottime() - began > 3 * LEASE)
        done_by_then = len(effects.read("finished")) + len(effects.read("ended")) - LONG
    assert done_by_then < SHORT
    back_at = app.boottime()
    wait_until(scene.ended(LONG + SHORT), 30)
    assert all(worker.alive for worker in workers)
    starts = [effect.job for effect in effects.read("started")]
    assert sorted(starts) == sorted(long + short)
    assert scene.rows("SELECT * FROM jobqueue_attempts") == []
    for id_ in long:
        (ended,) = effects.read("ended", job=id_)
        assert ended.at < back_at
        assert scene.record(id_).result == str(ended.fence)
    # Both go on at work: so many jobs at a time need both.
    scene.many("hold", [("more",)] * 8)
    wait_until(lambda: len(effects.read("started")) == LONG + SHORT + 8, 20)
    effects.open_gate("more")
    for worker in workers:
        worker.terminate()
    assert [worker.wait() for worker in workers] == [0, 0]


def test_short_outages_of_about_a_lease_end_no_lease_either(scene: Scene, wait_until) -> None:
    effects = scene.effects
    scene.workers(2, lease=1, concurrency=2)
    ids = scene.many("hold", [("finish",)] * 4)
    wait_until(lambda: len(effects.read("started")) == len(ids))
    for length in (1.0, 1.1, 1.2):
        with scene.nobody_writes():
            began = app.boottime()
            wait_until(lambda: app.boottime() - began > length)
        beats = dict(scene.rows("SELECT id, beat FROM jobqueue_workers"))
        wait_until(
            lambda: all(
                beat > beats[id_] + 1
                for id_, beat in scene.rows("SELECT id, beat FROM jobqueue_workers")
            )
        )
    effects.open_gate("finish")
    wait_until(scene.ended(len(ids)))
    assert len(effects.read("started")) == len(ids)
    assert scene.rows("SELECT * FROM jobqueue_attempts") == []
