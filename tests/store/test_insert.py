"""Jobs written down: batches, due times, unique keys."""

import gc
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, text

from jobqueue.options import Options
from jobqueue.new_jobs import Conflict, Inserted
from jobqueue.records import JobFilter
from jobqueue.states import State
from jobqueue.store import enqueue
from jobqueue.store import jobs as jobs_module
from jobqueue.store.jobs import Jobs
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.tasks import Call
from tests.store.conftest import ONLY_SQLITE, StoreKit

SCOPES = ("finished", "started", "deleted")


def test_a_job_is_there_with_its_defaults(kit: StoreKit) -> None:
    id_ = kit.add()
    job = kit.row(id_)
    assert (job.task, job.queue, job.state, job.priority) == ("add", "default", "available", 0)
    assert (job.attempt, job.max_attempts, job.fence, job.crashes, job.snoozes) == (0, 10, 0, 0, 0)
    assert job.run_at.tzinfo is not None
    assert abs(job.run_at - job.created_at) < timedelta(seconds=5)
    assert job.tags == ()
    empty = "worker timeout unique_key unique_until progress progress_message cancel_requested_at"
    for name in [*empty.split(), "reason", "result", "started_at", "finished_at", "error"]:
        assert getattr(job, name) is None, name


def test_every_field_of_a_call_is_kept(kit: StoreKit) -> None:
    given = kit.new(
        "send",
        queue="mail",
        priority=-5,
        args='{"args":["ü \\"q\\" \\\\ 🦆"],"kwargs":{"n":9223372036854775807}}',
        tags='["a","b"]',
        max_attempts=3,
        timeout=2.5,
        backoff='{"base": 2.0}',
        unique_key="key 🦆",
        unique_until="deleted",
    )
    [made] = kit.insert(given)
    job = kit.row(made.id)
    for name in "task queue priority args max_attempts timeout unique_key unique_until".split():
        assert getattr(job, name) == getattr(given, name), name
    assert job.tags == ("a", "b")
    assert kit.column(made.id, "backoff") == given.backoff


def test_ids_grow_in_the_order_of_the_calls(kit: StoreKit) -> None:
    made = kit.insert(
        *(kit.new(f"task{n}", unique_key=f"k{n}" if n % 3 else None) for n in range(500))
    )
    ids = [each.id for each in made]
    assert ids == sorted(set(ids))
    assert all(each.created for each in made)
    assert [kit.row(id_).task for id_ in ids[:20]] == [f"task{n}" for n in range(20)]


@pytest.mark.parametrize("others", [0, 1], ids=["plain", "with a delayed one"])
def test_every_field_of_many_calls_is_kept_in_their_order(kit: StoreKit, others: int) -> None:
    texts = ["\\", "\\N", "\t", "\n", "\r\n", 'ü "q" 🦆', "", "\\.", "a\\\tb"]
    given = [
        kit.new(
            f"task {text}",
            queue=f"queue {text}",
            priority=number,
            args=json.dumps({"args": [text, number], "kwargs": {}}),
            tags=json.dumps([text, "b"]) if number % 2 else None,
            max_attempts=3,
            timeout=None if number % 3 else 2.5,
            backoff=None if number % 2 else json.dumps(text),
        )
        for number, text in enumerate(texts * 3)
    ]
    given += [kit.new("late", delay=60.0)] * others
    made = kit.insert(*given)
    assert [each.id for each in made] == sorted({each.id for each in made})
    for new, each in zip(given, made, strict=True):
        job = kit.row(each.id)
        for name in "task queue priority args max_attempts timeout".split():
            assert getattr(job, name) == getattr(new, name), name
        assert job.tags == tuple(json.loads(new.tags or "[]"))
        assert kit.column(each.id, "backoff") == new.backoff
        assert (job.state, job.attempt, job.fence) == (
            "available" if new.delay is None else "scheduled",
            0,
            0,
        )


def test_batches_end_before_a_statement_grows_too_long(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueue, "BATCH_BYTES", 100)
    seen: list[str] = []

    @event.listens_for(kit.store.engine, "before_cursor_execute")
    def _see(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    made = kit.insert(*(kit.new(args=json.dumps("x" * 58), delay=1.0) for _ in range(5)))
    assert [each.id for each in made] == sorted({each.id for each in made})
    assert sum("INSERT INTO jobqueue_jobs" in statement for statement in seen) == 5


def test_a_batch_may_be_longer_than_one_statement_takes(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueue, "BATCH", 7)
    calls = [kit.new(f"t{n}", unique_key="same" if n in (3, 19) else None) for n in range(20)]
    made = kit.insert(*calls)
    ids = [each.id for each in made]
    assert ids[19] == ids[3] and not made[19].created
    assert ids[:19] == sorted(set(ids[:19]))
    assert [kit.row(id_).task for id_ in ids[:19]] == [f"t{n}" for n in range(19)]


def test_plain_calls_too_are_written_no_more_than_a_batch_at_a_time(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits long for one statement may meet the server's statement_timeout."""
    monkeypatch.setattr(enqueue, "BATCH", 12)
    written: list[int] = []

    @event.listens_for(kit.store.engine, "before_cursor_execute")
    def _see(_connection: Any, _cursor: Any, text: str, given: Any, _: Any, many: bool) -> None:
        if text.startswith("COPY"):
            written.append(len(given[0][0]))
        elif text.startswith("INSERT"):
            written.append(len(given) if many else 1)

    made = kit.insert(*(kit.new(f"t{n}") for n in range(25)))
    assert written == [12, 12, 1]
    assert [kit.row(each.id).task for each in made] == [f"t{n}" for n in range(25)]


def test_calls_rows_and_ids_are_no_work_for_the_garbage_collector(kit: StoreKit) -> None:
    """With 10,000 of each, it took a third of the time of `enqueue_many` on Postgres."""
    new = kit.new()
    made = kit.insert(new)[0]
    call = Call(None, new.args, Options())  # type: ignore[arg-type]
    assert not any(map(gc.is_tracked, (call, new, made)))


@ONLY_SQLITE
def test_a_job_has_its_own_id_though_a_trigger_of_the_application_inserts_a_row(
    kit: StoreKit,
) -> None:
    with kit.store.write() as connection:
        connection.execute(text("CREATE TABLE audit (id INTEGER PRIMARY KEY, job INTEGER)"))
        connection.execute(text("INSERT INTO audit VALUES (1000, NULL)"))
        connection.execute(
            text(
                "CREATE TRIGGER audited AFTER INSERT ON jobqueue_jobs"
                " BEGIN INSERT INTO audit (job) VALUES (new.id); END"
            )
        )
    made = [kit.add(), kit.add()]
    assert [kit.row(id_).id for id_ in made] == made
    with kit.store.read() as connection:
        assert connection.execute(text("SELECT max(id) FROM audit")).scalar() == 1002


def test_an_empty_batch_is_nothing(kit: StoreKit) -> None:
    assert kit.insert() == []


def test_a_batch_is_written_down_whole_or_not_at_all(kit: StoreKit) -> None:
    with pytest.raises(Exception, match="(?i)null"):
        kit.insert(kit.new(), kit.new(max_attempts=None))
    assert kit.jobs.count(JobFilter()) == 0


def test_a_delayed_job_is_scheduled_by_the_clock_of_the_database(kit: StoreKit) -> None:
    id_ = kit.add(delay=90.5)
    job = kit.row(id_)
    assert job.state is State.SCHEDULED
    assert abs(job.run_at - job.created_at - timedelta(seconds=90.5)) < timedelta(seconds=5)


def test_a_delay_of_nothing_is_now(kit: StoreKit) -> None:
    assert kit.state(kit.add(delay=0.0)) is State.AVAILABLE


def test_an_instant_to_come_schedules_and_one_gone_by_is_due_at_once(kit: StoreKit) -> None:
    future = datetime(2190, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    past = datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    waiting, due = kit.row(kit.add(at=future)), kit.row(kit.add(at=past))
    assert (waiting.state, waiting.run_at) == (State.SCHEDULED, future)
    assert (due.state, due.run_at) == (State.AVAILABLE, past)


def test_an_instant_in_another_zone_is_the_same_instant(kit: StoreKit) -> None:
    zone = datetime.fromisoformat("2190-01-02T03:04:05+05:30")
    assert kit.row(kit.add(at=zone)).run_at == zone


@pytest.mark.parametrize("scope", SCOPES)
def test_a_second_job_with_a_key_is_the_first(kit: StoreKit, scope: str) -> None:
    [first] = kit.insert(kit.new(unique_key="k", unique_until=scope))
    [second] = kit.insert(kit.new(unique_key="k", unique_until=scope))
    assert first.created
    assert second == Inserted(first.id, False)
    assert kit.jobs.count(JobFilter()) == 1


HOLDS = {
    "finished": {State.SCHEDULED, State.AVAILABLE, State.RUNNING},
    "started": {State.SCHEDULED, State.AVAILABLE, State.RUNNING},  # Claimed, and not begun.
    "deleted": set(State),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_is_held_until_its_scope_ends(kit: StoreKit, scope: str, state: State) -> None:
    first = kit.put(state, unique_key="k", unique_until=scope)
    [second] = kit.insert(kit.new(unique_key="k", unique_until=scope))
    assert second.created == (state not in HOLDS[scope])
    assert (second.id != first) == second.created


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_is_free_once_its_holder_is_deleted(kit: StoreKit, scope: str) -> None:
    first = kit.put(State.SUCCEEDED, unique_key="k", unique_until=scope)
    kit.jobs.delete(JobFilter(ids=(first,)))
    assert kit.insert(kit.new(unique_key="k", unique_until=scope))[0].created


def test_keys_of_different_scopes_hold_each_other(kit: StoreKit) -> None:
    first = kit.add(unique_key="k", unique_until="deleted")
    for scope in SCOPES:
        assert kit.insert(kit.new(unique_key="k", unique_until=scope)) == [Inserted(first, False)]


def test_duplicates_inside_one_batch_are_one_job(kit: StoreKit) -> None:
    made = kit.insert(
        kit.new(unique_key="a"),
        kit.new(),
        kit.new(unique_key="a"),
        kit.new(unique_key="b"),
        kit.new(unique_key="a"),
    )
    a, b = made[0].id, made[3].id
    assert [each.created for each in made] == [True, True, False, True, False]
    assert made[2].id == made[4].id == a
    assert kit.jobs.count(JobFilter()) == 3
    assert {kit.row(a).unique_key, kit.row(b).unique_key} == {"a", "b"}


def test_a_batch_mixes_new_and_held_keys(kit: StoreKit) -> None:
    held = kit.add(unique_key="held")
    made = kit.insert(
        kit.new(unique_key="held"), kit.new(unique_key="new"), kit.new(unique_key="held")
    )
    assert made[0] == made[2] == Inserted(held, False)
    assert made[1].created and made[1].id != held


def test_jobs_without_a_key_never_hold_each_other(kit: StoreKit) -> None:
    assert all(made.created for made in kit.insert(*[kit.new()] * 3))


@pytest.mark.parametrize("other", [{"task": "other"}, {"args": '{"args":[1],"kwargs":{}}'}])
def test_another_call_under_the_same_key_gets_the_job_and_a_warning(
    kit: StoreKit, caplog: pytest.LogCaptureFixture, other: dict[str, str]
) -> None:
    first = kit.add(unique_key="k")
    with caplog.at_level(logging.WARNING, "jobqueue"):
        assert kit.insert(kit.new(unique_key="k")) == [Inserted(first, False)]
        assert caplog.records == []
        assert kit.insert(kit.new(**{"unique_key": "k", **other})) == [Inserted(first, False)]
    [record] = caplog.records
    assert "'k'" in record.message and str(first) in record.message


def test_another_call_under_a_key_of_the_same_batch_is_warned_of_too(
    kit: StoreKit, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "jobqueue"):
        made = kit.insert(kit.new(unique_key="k"), kit.new("other", unique_key="k"))
    assert made[1] == Inserted(made[0].id, False)
    assert "'k'" in caplog.text


def test_one_key_from_eight_threads_at_once_is_one_job(kit: StoreKit, together: Any) -> None:
    for key in ("a", "b", "c"):
        made = together(*[lambda key=key: kit.insert(kit.new(unique_key=key))[0]] * 8)
        assert [type(each) for each in made] == [Inserted] * 8, made
        assert len({each.id for each in made}) == 1
        assert sum(each.created for each in made) == 1
    assert kit.jobs.count(JobFilter()) == 3


@pytest.mark.databases("postgres")  # SQLite has one writer.
def test_a_batch_that_meets_a_deadlock_over_keys_is_written_after_all(
    kit: StoreKit, second_store: Any, blocked: Any
) -> None:
    # A transaction looks for a deadlock once, so long after it began to wait. The gate lets theirs
    # wait for ours only when ours waits for theirs already: it is theirs that finds the circle.
    other, b = Jobs(second_store(deadlock_timeout="50ms")), kit.new(unique_key="b")
    engine = kit.store.engine
    with engine.connect() as mine, engine.connect() as gate, ThreadPoolExecutor(2) as pool:
        held, gated = mine.begin(), gate.begin()
        mine.execute(text("SET LOCAL deadlock_timeout = '10min'"))
        [a] = kit.jobs.insert([kit.new(unique_key="a")], mine)
        kit.jobs.insert([kit.new(unique_key="gate")], gate)
        theirs = pool.submit(other.insert, [b, *(kit.new(unique_key=key) for key in ("gate", "a"))])
        blocked()
        ours = pool.submit(kit.jobs.insert, [b], mine)
        blocked(2)
        gated.rollback()
        [made] = ours.result(30)
        held.commit()
        found = theirs.result(30)
    assert (a.created, made.created) == (True, True)
    assert [each.created for each in found] == [False, True, False]
    assert (found[0].id, found[2].id) == (made.id, a.id)


@pytest.mark.databases("postgres")  # SQLite has one writer.
def test_a_key_whose_holder_ends_between_two_looks_is_taken_after_all(
    kit: StoreKit, second_store: Any
) -> None:
    holder = kit.worker()
    first = kit.add(unique_key="k")
    claim = kit.take_one(holder)
    ended: list[int] = []
    other = second_store()

    @event.listens_for(kit.store.engine, "before_cursor_execute")
    def end_it_meanwhile(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT") and "unique_key IN" in statement and not ended:
            ended.append(first)
            with other.write() as connection:
                kit.completion.complete(connection, holder, [kit.succeeded(claim)])

    made = kit.insert(kit.new(unique_key="k"), kit.new(unique_key="k"))
    assert ended == [first]
    assert made[0].created and made[0].id != first
    assert made[1] == Inserted(made[0].id, False)


@pytest.mark.databases("postgres")
def test_a_key_held_by_an_insert_that_rolls_back_is_taken(
    kit: StoreKit, second_store: Any, together: Any
) -> None:
    other = second_store()
    with other.engine.connect() as connection:
        transaction = connection.begin()
        [lost] = kit.jobs.insert([kit.new(unique_key="k")], connection)
        [[made], _] = together(lambda: kit.insert(kit.new(unique_key="k")), transaction.rollback)
    assert made.created and made.id != lost.id


def test_an_insert_on_a_connection_that_rolls_back_leaves_nothing(kit: StoreKit) -> None:
    with kit.store.engine.connect() as connection:
        transaction = connection.begin()
        made = kit.jobs.insert([kit.new(unique_key="k"), kit.new()], connection)
        assert all(each.created for each in made)
        transaction.rollback()
    assert kit.jobs.count(JobFilter()) == 0
    assert kit.insert(kit.new(unique_key="k"))[0].created


def test_an_insert_on_a_connection_is_there_only_once_that_commits(kit: StoreKit) -> None:
    with kit.store.engine.connect() as connection, connection.begin() as transaction:
        [made] = kit.jobs.insert([kit.new()], connection)
        assert kit.jobs.get(made.id) is None
        transaction.commit()
    assert kit.state(made.id) is State.AVAILABLE


def test_a_job_of_an_old_transaction_is_due_from_when_it_was_written(kit: StoreKit) -> None:
    """The clock is that of the statement: the transaction may have begun long before."""
    from sqlalchemy import select

    from jobqueue.store.clock import now

    with kit.store.engine.connect() as connection, connection.begin():
        before = connection.execute(select(now())).scalar_one()
        [made] = kit.jobs.insert([kit.new()], connection)
    job = kit.row(made.id)
    assert job.run_at >= before.replace(microsecond=before.microsecond // 1000 * 1000)
    assert job.state is State.AVAILABLE


def test_an_id_is_never_used_twice(kit: StoreKit) -> None:
    newest = kit.add_many(3)[-1]
    changed, refused = kit.jobs.delete(JobFilter())
    assert len(changed) == 3 and not refused
    assert kit.add() > newest


def test_jobs_are_found_by_what_they_are(kit: StoreKit) -> None:
    a = kit.add(tags='["red","big"]', queue="mail")
    b = kit.add(task="send", tags='["Red"]')
    c = kit.put(State.FAILED)
    find = lambda **given: [job.id for job in kit.jobs.find(JobFilter(**given))]
    assert find() == [c, b, a]
    assert find(tag="red") == [a]
    assert find(tag="Red") == [b]
    assert find(tag="re") == find(tag="r%") == find(tag="_ed") == []
    assert find(task="send") == find(tasks=("send", "mail")) == [b]
    assert find(queue="mail") == [a]
    assert find(state=State.FAILED) == [c]
    assert find(ids=(a, c, 999_999)) == [c, a]
    assert find(since=kit.row(b).created_at)[-1] in (a, b)
    assert find(since=datetime(2190, 1, 1, tzinfo=UTC)) == []
    assert [job.id for job in kit.jobs.find(JobFilter(), 2)] == [c, b]
    assert kit.jobs.states([a, c, 999_999]) == {a: State.AVAILABLE, c: State.FAILED}


def test_finding_turns_pages(kit: StoreKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "PAGE", 4)
    ids = kit.add_many(10)
    assert [job.id for job in kit.jobs.find(JobFilter())] == ids[::-1]
    assert [job.id for job in kit.jobs.find(JobFilter(), 6)] == ids[:3:-1]


def test_a_list_of_ids_may_be_very_long(kit: StoreKit) -> None:
    ids = tuple(kit.add_many(3))
    many = ids + tuple(range(10**6, 10**6 + 70_000))
    assert kit.jobs.count(JobFilter(ids=many)) == 3
    assert kit.jobs.states(many[:2000]) == dict.fromkeys(ids, State.AVAILABLE)


def test_a_key_whose_older_job_runs_again_gives_that_one_and_not_the_last_that_ended(
    kit: StoreKit,
) -> None:
    holder = kit.worker()
    older = kit.add(unique_key="k")
    kit.finish(holder, kit.succeeded(kit.take_one(holder)))
    newer = kit.add(unique_key="k")
    kit.finish(holder, kit.succeeded(kit.take_one(holder)))
    assert newer != older
    kit.jobs.retry(JobFilter(ids=(older,)), succeeded=True)
    assert kit.insert(kit.new(unique_key="k")) == [Inserted(older, False)]


@pytest.mark.databases("postgres")  # On the other, who writes holds the database.
def test_a_batch_locks_the_holders_of_its_keys_in_the_order_of_their_ids(
    kit: StoreKit, blocked: Any
) -> None:
    """As every transaction does, so that no two wait for each other."""
    first, second = kit.add(unique_key="a"), kit.add(unique_key="b")
    calls = [kit.new(unique_key=key, conflict=Conflict("replace"), priority=5) for key in "ba"]
    batch = threading.Thread(target=kit.insert, args=calls)
    row = select(jobs_table.c.id).with_for_update(nowait=True)
    with kit.store.write() as other:
        other.execute(row.where(jobs_table.c.id == first))
        batch.start()
        blocked()
        with kit.store.write() as third:  # Which fails if the batch has locked it.
            third.execute(row.where(jobs_table.c.id == second))
    batch.join(60)
    assert [kit.row(id_).priority for id_ in (first, second)] == [5, 5]
