"""The audit: one row for each action of an operator, in the action's transactions."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text, update

from jobqueue.records import JobFilter
from jobqueue.states import State
from jobqueue.store import jobs as jobs_module
from jobqueue.store.audit import IDS, Action, Audit, target_of, transact_audited
from jobqueue.store.clock import after
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind, audit
from jobqueue.store.undo import Undo
from jobqueue.worker.upkeep.pruner import Pruner
from tests.store.conftest import ONLY_POSTGRES, StoreKit

KILL_ME = text("SELECT pg_terminate_backend(pg_backend_pid())")


def rows(kit: StoreKit) -> list[tuple[str, Any, int]]:
    """The audit, oldest first, but for when and who."""
    found = reversed(Audit(kit.store).find(None))
    return [(row["verb"], row["target"], row["changed"]) for row in found]


def by_ada(verb: str, **target: Any) -> Action:
    return Action("ada@web-1", verb, target)


def test_an_action_in_many_transactions_has_one_row_with_the_sum(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "BULK", 2)
    kit.add_many(5)
    wanted = JobFilter(task="add")
    kit.jobs.cancel(wanted, Action("ada@web-1", "cancel", target_of(wanted)))
    (row,) = Audit(kit.store).find(None)
    assert (row["actor"], row["verb"], row["target"], row["changed"]) == (
        *("ada@web-1", "cancel"),
        *({"task": "add"}, 5),
    )
    assert "T" in row["at"] and row["at"].endswith("+00:00")


def test_what_failed_or_changed_nothing_writes_no_row(kit: StoreKit) -> None:
    def fail(connection: Any) -> int:
        raise ZeroDivisionError

    kit.jobs.cancel(JobFilter(), by_ada("cancel", all=True))
    assert not Pauses(kit.store, "ada").resume(PauseKind.QUEUE, "mail")
    with pytest.raises(ZeroDivisionError):
        transact_audited(kit.store, fail, by_ada("cancel"), int)
    assert rows(kit) == []


@pytest.mark.parametrize("broken", ["zzz", "[7]"])
def test_a_row_that_plain_sql_has_broken_hides_no_other_action(kit: StoreKit, broken: str) -> None:
    pauses = Pauses(kit.store, "ada")
    for name in ("mail", "sync"):
        pauses.pause(PauseKind.QUEUE, name)
    with kit.store.write() as connection:
        broke = {"target": broken, "before": broken}
        connection.execute(update(audit).where(audit.c.target.like("%mail%")).values(broke))
    found = Audit(kit.store).find(None)
    assert sorted(row["about"] for row in found) == ["", "queue sync"]
    assert Undo(kit.store).offers(Audit(kit.store).stored(None))


@ONLY_POSTGRES
def test_work_that_is_tried_again_is_counted_once(
    kit: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    action, in_order = by_ada("cancel"), kit.store.transact

    def transact(work: Callable[[Any], Any]) -> Any:
        def dying(connection: Any) -> Any:
            result = work(connection)
            runs.append(1)
            if len(runs) == 1:
                connection.execute(KILL_ME)
            return result

        return in_order(dying)

    monkeypatch.setattr(kit.store, "transact", transact)
    for _ in range(2):
        transact_audited(kit.store, lambda _: 3, action, int)
    assert (rows(kit), len(runs)) == ([("cancel", {}, 6)], 3)


def test_every_verb_writes_its_row(kit: StoreKit) -> None:
    job = kit.add()
    one = JobFilter(ids=(job,))
    kit.jobs.cancel(one, by_ada("cancel"))
    kit.jobs.retry(one, by_ada("retry"))
    kit.jobs.delete(one, by_ada("delete"))
    Pauses(kit.store, "ada").pause(PauseKind.QUEUE, "mail")
    Pauses(kit.store, "ada").resume(PauseKind.QUEUE, "mail")
    old = kit.put(State.FAILED)
    kit.maintenance.prune(State.FAILED, 0, action=by_ada("prune"))
    assert kit.jobs.get(old) is None
    assert [row[0] for row in rows(kit)] == [
        *("cancel", "retry", "delete", "pause", "resume", "prune")
    ]
    assert {row[2] for row in rows(kit)} == {1}


def test_a_target_names_the_first_ids_and_counts_the_others() -> None:
    target = target_of(JobFilter(ids=tuple(range(1, IDS + 8))))
    assert (len(target["ids"]), target["more_ids"]) == (IDS, 7)
    assert target_of(JobFilter(ids=(7,))) == {"ids": (7,)}
    assert target_of(JobFilter()) == {"all": True}
    assert json.dumps(target_of(JobFilter(state=State.FAILED, tag="eu"))) == (
        '{"state": "failed", "tag": "eu"}'
    )


def test_an_actor_fits_a_database_of_any_encoding(kit: StoreKit) -> None:
    Pauses(kit.store, "adä\udc80" + "x" * 1000).pause(PauseKind.QUEUE, "mail")
    (row,) = Audit(kit.store).find(None)
    assert row["actor"].startswith(r"ad\xe4\udc80xx") and len(row["actor"]) == 200


def test_rows_older_than_90_days_are_deleted(kit: StoreKit) -> None:
    for day in (0, 89, 91):
        Pauses(kit.store, "ada").pause(PauseKind.QUEUE, f"q{day}")
    with kit.store.write() as connection:
        for day in (89, 91):
            old = update(audit).where(audit.c.target == f'{{"queue": "q{day}"}}')
            connection.execute(old.values(at=after(-day * 86_400.0)))
    Pruner(kit.maintenance, {}).tick()
    assert [row[1]["queue"] for row in rows(kit)] == ["q0", "q89"]
