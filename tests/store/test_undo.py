"""Taking back what an operator did: what was there is in the row, and only what is still so is undone."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from sqlalchemy import insert, text, update

from jobqueue.bulk_verbs import change_jobs, updating
from jobqueue.errors import JobNotFound, ScheduleNotFound, WrongState
from jobqueue.job_changes import JobChanges
from jobqueue.queue_switches import Rate
from jobqueue.records import JobFilter
from jobqueue.schedules.definition import Definition
from jobqueue.states import State
from jobqueue.store.audit import IDS, Action, Audit
from jobqueue.store.audit_words import about
from jobqueue.store.pauses import Pauses
from jobqueue.store.queue_control import QueueControl
from jobqueue.store.schedules import ScheduleTable
from jobqueue.store.schema import PauseKind, audit, queues, schedules
from jobqueue.store.undo import Undo
from tests.store.conftest import StoreKit

ADA = "ada@web-1"
SECRET = '{"args":[],"kwargs":{"token":"s3cret"}}'
FIVE = Definition("add", "every", "300", None, SECRET, None, "latest", "skip")
NIGHTLY = replace(FIVE, kind="cron", expression="0 3 * * *", tz="UTC", args="{}", catch_up="none")


class Operator:
    """One who changes settings, and takes that back."""

    def __init__(self, kit: StoreKit) -> None:
        self.kit = kit
        self.control = QueueControl(kit.store, ADA)
        self.schedules = ScheduleTable(kit.store, ADA)
        self._undo = Undo(kit.store)

    def limit(self, most: int | None) -> None:
        self.control.limit("mail", most)

    def rate(self, rate: Rate | None) -> None:
        self.control.rate("mail", rate)

    def fair(self, fair: bool) -> None:
        self.control.fair("mail", fair=fair)

    def move(self, *ids: int, **to: Any) -> None:
        moved = updating(JobChanges(**to))
        change_jobs(moved, self.kit.jobs, JobFilter(ids=ids), ADA, lambda: None)

    def schedule(self, definition: Definition) -> None:
        self.schedules.add("s", definition, replace=True)

    def pause(self, kind: str, name: str, verb: str = "pause") -> None:
        if kind == "schedule" and verb == "pause":
            self.schedules.pause(name, ADA)
        elif kind == "schedule":
            self.schedules.resume(name)
        else:
            getattr(Pauses(self.kit.store, ADA), verb)(PauseKind(kind), name)

    def undo(self, id_: int | None = None) -> str:
        """Take back an action, the last one by default; return what is said of it."""
        last = self.rows()[0]["id"] if id_ is None else id_
        return self._undo.undo(last, "bob@web-2", lambda _verb: None)

    def rows(self) -> list[dict[str, Any]]:
        return Audit(self.kit.store).stored(None)

    def says(self) -> list[str]:
        """What the log says, newest first."""
        return [f"{row['verb']} {about(row)}" for row in self.rows()]

    def offers(self) -> list[str | None]:
        """By what each action in the log can be taken back, newest first; None: changed since."""
        found = self._undo.offers(self.rows())
        return [found.get(row["id"], "never") for row in self.rows()]

    def execute(self, statement: Any) -> None:
        with self.kit.store.write() as connection:
            connection.execute(statement)


@pytest.fixture
def operator(kit: StoreKit) -> Operator:
    made = Operator(kit)
    made.execute(schedules.delete())  # They are not among what is emptied before each test.
    return made


def column(kit: StoreKit, query: str) -> Any:
    with kit.store.read() as connection:
        return tuple(connection.execute(text(query)).one())


SWITCHES = "SELECT max_running, rate_count, rate_period, rate_burst, fair FROM jobqueue_queues"
JOB = "SELECT queue, priority FROM jobqueue_jobs WHERE id = 1"
SCHEDULE = "SELECT kind, expression, tz, args, catch_up FROM jobqueue_schedules"
PAUSED = "SELECT paused_at IS NULL FROM jobqueue_schedules"
PAUSES = "SELECT count(*) FROM jobqueue_pauses"
SETTINGS: dict[str, tuple[list[Callable[[Operator], None]], str, str]] = {
    "limit": (
        [lambda o: o.limit(4), lambda o: o.limit(10)],
        SWITCHES,
        "limit queue mail, limit 10 → 4",
    ),
    "first limit": ([lambda o: o.limit(10)], SWITCHES, "limit queue mail, limit 10 → none"),
    "rate": (
        [lambda o: o.rate(Rate(5, 1234567.125, 2)), lambda o: o.rate(None)],
        SWITCHES,
        "rate queue mail, rate none → 5/1234567.125s, burst 2",
    ),
    "fair": (
        [lambda o: o.fair(True), lambda o: o.fair(False)],
        SWITCHES,
        "fair queue mail, fair off → on",
    ),
    "priority": (
        [lambda o: o.move(1, 2, priority=7)],
        JOB,
        "update jobs 1, 2, priority 7 → 0",
    ),
    "queue": (
        [lambda o: o.move(1, queue="bulk", priority=3)],
        JOB,
        "update job 1, priority 3 → 0, queue bulk → <img src=x onerror=alert(1)>",
    ),
    "schedule": (
        [lambda o: o.schedule(FIVE), lambda o: o.schedule(NIGHTLY)],
        SCHEDULE,
        "add schedule s, when cron 0 3 * * * UTC → every 5m, catch_up none → latest, arguments changed",
    ),
    "reset": (
        [
            lambda o: o.schedule(FIVE),
            lambda o: o.execute(update(schedules).values(declared=NIGHTLY.to_text())),
            lambda o: o.schedules.reset("s"),
        ],
        SCHEDULE,
        "add schedule s, when cron 0 3 * * * UTC → every 5m, catch_up none → latest, arguments changed",
    ),
    "pause of a queue": (
        [lambda o: o.pause("queue", "mail")],
        "SELECT paused_at IS NULL FROM jobqueue_queues",
        "resume queue mail",
    ),
    "pause of a schedule": (
        [lambda o: o.schedule(FIVE), lambda o: o.pause("schedule", "s")],
        PAUSED,
        "resume schedule s",
    ),
    "resume of a schedule": (
        [
            lambda o: o.schedule(FIVE),
            lambda o: o.pause("schedule", "s"),
            lambda o: o.pause("schedule", "s", "resume"),
        ],
        PAUSED,
        "pause schedule s",
    ),
    "pause of a tag": ([lambda o: o.pause("tag", "eu")], PAUSES, "resume tag eu"),
    "resume of a task": (
        [lambda o: o.pause("task", "add"), lambda o: o.pause("task", "add", "resume")],
        PAUSES,
        "pause task add",
    ),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_an_undo_puts_back_what_was_there_and_can_be_undone(
    kit: StoreKit, operator: Operator, setting: str
) -> None:
    steps, query, said = SETTINGS[setting]
    kit.add_many(2)
    kit.change(1, queue="<img src=x onerror=alert(1)>")
    kit.change(2, queue="other")
    operator.execute(insert(queues).values(name="mail"))
    for step in steps[:-1]:
        step(operator)
    before = column(kit, query)
    steps[-1](operator)
    after = column(kit, query)
    assert operator.offers()[0] not in (None, "never")
    assert operator.undo() == said
    assert (column(kit, query), operator.says()[0]) == (before, said)
    last, undone = operator.rows()[:2]
    assert last["actor"] == "bob@web-2"
    by = rf"undone already, by bob@web-2 at [0-9: -]{{19}} UTC \(action {last['id']}\)$"
    with pytest.raises(WrongState, match=by):
        operator.undo(undone["id"])
    operator.undo()
    assert column(kit, query) == after != before
    assert operator.offers()[0] is not None


def test_what_was_changed_since_is_not_undone(kit: StoreKit, operator: Operator) -> None:
    kit.add_many(2)
    operator.limit(4)
    operator.fair(True)
    operator.move(1, 2, priority=7)
    operator.schedule(FIVE)
    operator.schedule(NIGHTLY)
    operator.pause("queue", "mail")
    assert operator.offers() == ["resume", "add", "never", "update", "fair", "limit"]
    # The code declares something else, a program changes it, plain SQL writes it: no row says so.
    QueueControl(kit.store).limit("mail", 5)
    operator.execute(update(queues).values(fair=None, paused_at=None))
    operator.execute(update(schedules).values(args=SECRET))
    kit.change(1, 2, priority=8)
    rows = operator.rows()
    assert operator.offers() == [None, None, "never", None, None, None]
    for row in rows:
        with pytest.raises(WrongState, match=rf"^action {row['id']} \(.*") as refused:
            operator.undo(row["id"])
        assert "changed since" in str(refused.value) or "cannot be undone" in str(refused.value)
    assert operator.rows() == rows
    kit.change(1, priority=7)  # Of two jobs one is as it was left: that one goes back.
    assert operator.undo(rows[3]["id"]) == "update jobs 1, 2, set priority 0"
    assert (kit.row(1).priority, kit.row(2).priority) == (0, 8)
    assert (operator.rows()[0]["changed"], operator.offers()[0]) == (1, "never")


def test_of_two_actions_on_one_setting_the_newer_one_is_offered(operator: Operator) -> None:
    operator.limit(4)
    for verb in ("pause", "resume", "pause"):
        operator.pause("queue", "mail", verb)
    operator.limit(5), operator.limit(4)
    assert operator.offers() == ["limit", None, "resume", None, None, None]
    # Neither on the log's later pages, nor by its id: that would undo what was done since.
    rows, undo = operator.rows(), Undo(operator.kit.store)
    assert undo.offers(rows[3:]) == {row["id"]: None for row in rows[3:]}
    # The limit is 4 again, and the queue is paused again.
    for row, what, last in (
        (rows[5], "what it set was changed since", 6),
        (rows[3], "it was undone already", 4),
        (rows[4], "what it set was changed since", 4),
    ):
        by = rf"{what}, by {ADA} at .* UTC \(action {last}\)$"
        with pytest.raises(WrongState, match=by):
            operator.undo(row["id"])
    assert operator.rows() == rows
    for definition in (FIVE, NIGHTLY, replace(NIGHTLY, tz="Europe/Zurich")):
        operator.schedule(definition)
    with pytest.raises(WrongState, match="what it set was changed since, by"):
        operator.undo(8)


def test_jobs_that_no_longer_wait_are_not_moved_back(kit: StoreKit, operator: Operator) -> None:
    kit.add()
    operator.move(1, priority=7)
    kit.take_one(kit.worker())
    assert (kit.state(1), operator.offers()) == (State.RUNNING, [None])
    with pytest.raises(
        WrongState, match=r"is not undone: its jobs wait no longer, or were changed"
    ):
        operator.undo()


def test_what_has_no_one_old_value_cannot_be_undone(kit: StoreKit, operator: Operator) -> None:
    ids = kit.add_many(IDS + 1)
    kit.change(1, priority=5)
    operator.move(1, 2, priority=7)  # Two old values.
    operator.move(3, priority=7, tags=("eu",))
    operator.move(4, 9999, priority=7)  # One of them is gone: which ids it names is not enough.
    operator.move(*ids, priority=8)
    kit.jobs.update(
        JobFilter(task="add"),
        JobChanges(priority=9),
        Action(ADA, "update", {"task": "add", "set": {"priority": 9}}),
    )
    kit.jobs.cancel(JobFilter(ids=(1,)), Action(ADA, "cancel", {"ids": [1]}))
    operator.limit(4)
    operator.limit(4)  # No change, and no action.
    operator.move(2, priority=9)  # Nor this.
    operator.schedule(FIVE)
    assert operator.offers() == ["never", "limit"] + ["never"] * 6
    assert operator.says()[:4] == [
        "add schedule s",
        "limit queue mail, limit none → 4",
        "cancel job 1",
        "update task add, set priority 9",
    ]
    assert operator.says()[-1] == "update jobs 1, 2, set priority 7"
    with pytest.raises(
        WrongState, match=r"^action 6 \(cancel: job 1\) cannot be undone; .*: jobqueue retry$"
    ):
        operator.undo(6)
    with pytest.raises(
        JobNotFound, match=r"^there is no action 77 \(any more\); see: jobqueue log$"
    ):
        operator.undo(77)


def test_a_schedule_that_a_program_removed_is_not_made_again(operator: Operator) -> None:
    operator.schedule(FIVE)
    operator.schedule(NIGHTLY)
    ScheduleTable(operator.kit.store).remove("s")
    assert operator.offers() == [None, "never"]
    with pytest.raises(ScheduleNotFound):
        operator.undo()


@pytest.mark.parametrize("again", ["nobody", "the code", "an operator"])
def test_a_schedule_that_was_added_again_is_not_changed_by_an_undo_of_before(
    operator: Operator, again: str
) -> None:
    operator.schedule(FIVE)
    operator.schedule(NIGHTLY)
    operator.pause("schedule", "s")
    operator.schedules.remove("s")
    by_nobody = ScheduleTable(operator.kit.store)
    if again == "an operator":
        operator.schedule(NIGHTLY)
    elif again == "the code":
        by_nobody.add("s", NIGHTLY)
    if again != "nobody":
        by_nobody.pause("s", ADA)
    assert operator.offers()[-3:] == [None, None, "never"]
    said = f"added again since, by {ADA} at" if again == "an operator" else "removed since, by"
    for id_ in (2, 3):
        with pytest.raises(WrongState, match=f"is not undone: that schedule was {said}"):
            operator.undo(id_)
    if again != "nobody":
        assert operator.schedules.find("s")[0].definition == NIGHTLY


def test_the_log_shows_no_arguments_of_a_schedule(kit: StoreKit, operator: Operator) -> None:
    operator.schedule(FIVE)
    operator.schedule(NIGHTLY)
    assert operator.rows()[0]["before"]["was"] == asdict(FIVE) | {"source": "operator"}
    row = Audit(kit.store).find(1)[0]
    assert row["before"] == {
        **{"task": "add", "when": "every 5m"},
        **{"catch_up": "latest", "overlap": "skip"},
    }
    assert row["about"] == (
        "schedule s, when every 5m → cron 0 3 * * * UTC, catch_up latest → none, arguments changed"
    )


def test_of_two_who_change_a_limit_at_once_each_row_has_what_it_replaced(
    kit: StoreKit, operator: Operator, together: Callable[..., list[Any]]
) -> None:
    """Also where there is no row of the queue yet: each of the rows has the limit of the one before."""
    most = range(1, 9)
    assert together(*(lambda n=n: operator.limit(n) for n in most)) == [None] * len(most)
    replaced = {row["target"]["limit"]: row["before"]["limit"] for row in operator.rows()}
    chain: list[int | None] = [None]
    after = {old: new for new, old in replaced.items()}
    while chain[-1] in after:
        chain.append(after[chain[-1]])
    assert sorted(chain[1:]) == list(most), replaced
    assert column(kit, SWITCHES)[0] == chain[-1]


def test_of_two_who_undo_at_once_one_does(
    kit: StoreKit, operator: Operator, together: Callable[..., list[Any]]
) -> None:
    operator.limit(4)
    operator.limit(10)
    id_ = operator.rows()[0]["id"]
    answers = together(*(lambda: operator.undo(id_) for _ in range(4)))
    assert sum(isinstance(each, WrongState) for each in answers) == 3, answers
    assert len(operator.rows()) == 3 and column(kit, SWITCHES)[0] == 4


def test_rows_that_an_earlier_version_or_plain_sql_wrote_are_shown(operator: Operator) -> None:
    values = {"actor": ADA, "verb": "limit"}
    five = asdict(FIVE)
    wrong = json.dumps({"was": five, "became": five | {"task": 5}})
    for row in (
        {"target": '{"queue": "mail", "limit": 4}'},
        {"target": '{"queue": "mail"}', "before": '{"limit": 4}'},
        {"target": '{"ids": [1]}', "before": "[]", "verb": "update"},
        {"target": '{"queue": "a", "rate": "often"}', "before": '{"rate": null}', "verb": "rate"},
        {"target": '{"queue": "a", "task": "b"}', "verb": "pause"},
        {"target": '{"queue": {"a": 1}}', "verb": "pause"},
        {"target": '{"queue": 7, "limit": 3}', "before": '{"limit": 4}'},
        {"target": '{"queue": "mail", "limit": "x"}', "before": '{"limit": 4}'},
        {"target": '{"queue": "mail", "limit": 3}', "before": '{"limit": {"a": 1}}'},
        {"target": '{"queue": "mail", "limit": 3}', "before": '{"became": 3}'},
        {"target": '{"queue": "a", "rate": 5}', "before": '{"rate": null}', "verb": "rate"},
        {"target": '{"ids": 7, "set": {"queue": "x"}}', "verb": "update"},
        *(
            {"target": target, "before": '{"queue": "y"}', "verb": "update"}
            for target in (
                '{"ids": 7, "set": {"queue": "x"}}',
                '{"ids": ["x"], "set": {"queue": "x"}}',
                '{"ids": [1], "set": {"queue": 5}}',
                '{"ids": [1], "set": {"nonsense": 5}}',
                '{"ids": [1], "set": 5}',
            )
        ),
        *(
            {"target": '{"schedule": "s"}', "before": before, "verb": "add"}
            for before in ('{"was": {}, "became": {"x": 1}}', '{"was": 1, "became": null}', wrong)
        ),
    ):
        operator.execute(insert(audit).values(values | row))
    rows = operator.rows()
    assert operator.offers() == ["never"] * len(rows)
    assert operator.says()[-1] == "limit queue mail, limit 4"
    assert len(Audit(operator.kit.store).find(None)) == len(rows)
    for row in rows:
        with pytest.raises(WrongState, match="cannot be undone"):
            operator.undo(row["id"])


def test_what_an_earlier_version_set_since_counts_though_it_noted_no_old_value(
    operator: Operator,
) -> None:
    """Its commands may still be there while workers of this version run."""
    operator.limit(10)
    for most in (5, 10):
        target = f'{{"queue": "mail", "limit": {most}}}'
        operator.execute(insert(audit).values(actor=ADA, verb="limit", target=target))
    assert operator.offers() == ["never", "never", None]
    with pytest.raises(WrongState, match=r"changed since, by ada@web-1 at .* \(action 3\)$"):
        operator.undo(1)
