"""The grants of docs/roles.md: a producer, a worker and a reader do their work, and are refused the rest."""

import re
import secrets
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from jobqueue import JobFailed, JobQueue, QueueFull, current_job
from jobqueue.redaction import Hidden, ShownJobs
from jobqueue.store.stats import Monitor

PAGE = Path(__file__).parents[2] / "docs" / "roles.md"
ROLES = ("producer", "worker", "reader")
BLOCKS = re.findall(r"^```sql\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
VIEWS = (
    "queue_stats",
    "task_stats",
    "worker_stats",
    "throughput",
    "worker_minutes",
    "task_minutes",
)
DENIED = "permission denied"
MORE = ("INSERT, UPDATE (max_pending, when_full)", "INSERT, UPDATE (hidden)")
"""What the page grants to a producer that needs it."""

pytestmark = pytest.mark.databases("postgres")


def plain(url: str) -> str:
    return url.replace("postgresql:", "postgresql+psycopg:")


@pytest.fixture
def owner(url: str):
    engine = create_engine(plain(url))
    yield engine
    engine.dispose()


@pytest.fixture
def urls(url: str, owner):
    """The URL of each role, which has what the page grants it."""
    run = secrets.token_hex(4)
    names = {role: f"jobqueue_test_{role}_{run}" for role in ROLES}
    with owner.begin() as connection:
        for name in names.values():
            connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD '{run}'")
        for block in BLOCKS:
            if not any(more in block for more in MORE):
                connection.exec_driver_sql(as_roles(block, names))
    yield {
        role: make_url(url).set(username=name, password=run).render_as_string(hide_password=False)
        for role, name in names.items()
    } | {"names": names}
    with owner.begin() as connection:
        for name in names.values():
            connection.exec_driver_sql(f"DROP OWNED BY {name}")
            connection.exec_driver_sql(f"DROP ROLE {name}")


def as_roles(block: str, names: dict[str, str]) -> str:
    return re.sub(r"TO (\w+);", lambda found: f"TO {names[found[1]]};", block)


def queue_of(url: str) -> JobQueue:
    jobs = JobQueue(url)

    @jobs.task(max_attempts=1)
    def add(x: int, y: int) -> int:
        if x < 0:
            raise ValueError("negative")
        return x + y

    @jobs.task(max_attempts=1)
    def parent() -> int:
        current_job().progress(0.5, "half")
        return add.enqueue(1, 1).id

    @jobs.task(max_attempts=1)
    def paid() -> None:
        engine = create_engine(plain(url))
        with Session(engine) as session, session.begin():
            current_job().finish_within(session, "paid")
        engine.dispose()

    return jobs


def test_each_role_does_its_work(urls, owner) -> None:
    with owner.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO jobqueue_queues (name, max_pending, when_full) VALUES ('full', 1, 'reject')"
        )
    engine = create_engine(plain(urls["producer"]))
    with (
        queue_of(urls["producer"]) as producer,
        queue_of(urls["worker"]) as worker,
        queue_of(urls["reader"]) as reader,
    ):
        add, parent, paid = (producer.registry[name] for name in ("add", "parent", "paid"))
        made = producer.enqueue_many([add.call(n, n) for n in range(25)])  # Many are copied.
        made.append(add.options(unique_key="k", delay=0.1).enqueue(1, 1))
        assert add.options(unique_key="k").enqueue(1, 1).id == made[-1].id
        with Session(engine) as session, session.begin():
            made.append(add.within(session).enqueue(1, 1))
            made += producer.enqueue_many([add.call(1, 1)] * 2, within=session)
        add.options(queue="full").enqueue(1, 1)
        with pytest.raises(QueueFull):
            add.options(queue="full").enqueue(1, 1)
        wrong = add.enqueue(-1, 1)
        with worker.worker(stats_interval=0.2):
            assert [job.result(30) for job in made] == [*range(0, 50, 2), 2, 2, 2, 2]
            assert producer.get(parent.enqueue().result(30)).result(30) == 2
            assert paid.enqueue().result(30) == "paid"
            with pytest.raises(JobFailed, match="negative"):
                wrong.result(30)
            worker.cancel(worker.registry["add"].options(delay=60).enqueue(1, 1).id)
        worker.delete(wrong.id)
        assert {record.id for record in reader.list(limit=None)} >= {job.id for job in made}
        assert reader.get(made[0].id).result(timeout=5) == 0
        monitor = Monitor(reader.store)
        assert monitor.bounded_queues()
        with reader.store.read() as connection:
            for view in VIEWS:
                connection.execute(text(f"SELECT * FROM jobqueue_{view}")).all()
    engine.dispose()


@pytest.mark.parametrize("role", ["producer", "reader"])
def test_what_is_not_granted_is_refused(urls, role: str) -> None:
    with queue_of(urls["producer"]) as producer, queue_of(urls[role]) as jobs:
        job = producer.registry["add"].enqueue(1, 2)
        acts = [
            lambda: jobs.cancel(job.id),
            lambda: jobs.retry(job.id),
            lambda: jobs.delete(job.id),
            lambda: jobs.pause("default"),
            lambda: jobs.worker().start(),
        ]
        if role == "reader":
            acts.append(lambda: jobs.registry["add"].enqueue(1, 2))
        for act in acts:
            with pytest.raises(DBAPIError, match=DENIED):
                act()
        assert job.state == "available"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobqueue_meta SET value = 'x'",
        "UPDATE jobqueue_alembic_version SET version_num = '0001'",
        "DROP TABLE jobqueue_jobs",
    ],
)
def test_nobody_changes_what_the_owner_keeps(urls, role: str, statement: str) -> None:
    engine = create_engine(plain(urls[role]))
    with engine.connect() as connection, pytest.raises(DBAPIError, match=f"{DENIED}|must be owner"):
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_a_producer_declares_a_bound_with_one_more_grant(urls, owner) -> None:
    [more] = [block for block in BLOCKS if MORE[0] in block]
    for granted in (False, True):
        with queue_of(urls["producer"]) as producer:
            bounded = producer.queue("bounded", max_pending=5)
            task = producer.registry["add"].options(queue=bounded)
            if granted:
                with owner.begin() as connection:
                    connection.exec_driver_sql(as_roles(more, urls["names"]))
                assert task.enqueue(1, 2).state == "available"
            else:
                with pytest.raises(DBAPIError, match=DENIED):
                    task.enqueue(1, 2)


def test_a_producer_writes_what_a_task_hides_with_one_more_grant_and_enqueues_without(
    urls, owner, caplog
) -> None:
    def login(user: int, token: str) -> None: ...

    [more] = [block for block in BLOCKS if MORE[1] in block]
    engine = create_engine(plain(urls["producer"]))
    written: list[dict[str, Hidden]] = []
    for granted in (False, True):
        if granted:
            with owner.begin() as connection:
                connection.exec_driver_sql(as_roles(more, urls["names"]))
        for names in (("token",), ("token", "user")):
            with JobQueue(urls["producer"]) as producer:
                task = producer.task(redact=names)(login)
                with Session(engine) as session, session.begin():
                    task.within(session).enqueue(1, "s")
                assert task.enqueue(2, "s").state == "available"
                written.append(ShownJobs(producer.store).redaction.read().get("login"))
    engine.dispose()
    assert written == [None, None, Hidden(("token",), (1,)), Hidden(("token", "user"), (0, 1))]
    assert caplog.text.count("this role may not write jobqueue_redactions") == 2
