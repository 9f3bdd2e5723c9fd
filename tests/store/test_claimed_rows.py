"""What a claim carries: its columns, and in one column what few jobs have."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue.records import Claim
from tests.store.conftest import StoreKit

AT = datetime(2040, 2, 29, 23, 59, 58, 123000, tzinfo=UTC)
USUAL: dict[str, Any] = {
    "backoff": None,
    "snoozes": 0,
    "crashes": 0,
    "child_crashes": 0,
    "immediate_only": False,
    "at_most_once": False,
    "releases_key_on_start": False,
    "deadline_at": None,
    "scheduled_for": None,
    "expires_at": None,
}


@pytest.mark.parametrize(
    ("columns", "carried"),
    [
        ({}, {}),
        ({"backoff": '{"a":"\\"ü"}'}, {"backoff": '{"a":"\\"ü"}'}),
        ({"snoozes": 2}, {"snoozes": 2}),
        ({"crashes": 1}, {"crashes": 1, "immediate_only": True}),
        ({"child_crashes": 3}, {"child_crashes": 3}),
        ({"max_attempts": 1}, {"at_most_once": True, "immediate_only": True}),
        ({"base_max_attempts": 1}, {"at_most_once": True, "immediate_only": True}),
        ({"base_max_attempts": 2, "max_attempts": 1}, {}),
        (
            {"unique_key": "k", "unique_until": "started"},
            {"releases_key_on_start": True, "immediate_only": True},
        ),
        (
            {"unique_key": "k", "unique_until": "started", "key_released": 1},
            {"immediate_only": True},
        ),
        ({"unique_key": "k", "unique_until": "finished"}, {}),
        ({"deadline_at": AT}, {"deadline_at": AT}),
        ({"scheduled_for": AT}, {"scheduled_for": AT}),
        ({"expires_at": AT}, {"expires_at": AT, "immediate_only": True}),
        (
            {"deadline_at": AT, "scheduled_for": AT - timedelta(days=1), "snoozes": 7},
            {"deadline_at": AT, "scheduled_for": AT - timedelta(days=1), "snoozes": 7},
        ),
    ],
)
def test_every_way_to_claim_carries_what_few_jobs_have(
    kit: StoreKit, columns: dict[str, Any], carried: dict[str, Any]
) -> None:
    holder = kit.worker()
    ids = []
    for queue in ("one", "head", "many"):
        ids.append(kit.add(queue=queue, timeout=1.5, priority=-4))
        given = columns | {"unique_key": columns.get("unique_key") and queue}
        kit.change(ids[-1], headers='{"a":"b"}', **given)
    one = kit.take(holder, queue="one")
    head = kit.claims.claim_first(holder, "head", 1)
    cursor = (-(2**31), datetime(1, 1, 1, tzinfo=UTC), 0)
    with kit.store.write() as connection:
        many = kit.claims.claim_queues(
            connection, holder, {"many": cursor, "none": cursor}, share=1, limit=9, free=9
        )["many"]
    with kit.store.read() as connection:
        held = kit.claims.unknown(connection, holder, {})
    for id_, claim in zip(ids, [*one, *head, *many], strict=True):
        job = kit.row(id_)
        row = (id_, 1, holder.id, 1, job.max_attempts, job.run_at, job.started_at, '{"a":"b"}')
        assert row == (
            *(claim.id, claim.fence, claim.worker_id, claim.attempt, claim.max_attempts),
            *(claim.run_at, claim.started_at, claim.headers),
        )
        assert (claim.timeout, claim.priority) == (1.5, -4)
        assert {name: getattr(claim, name) for name in USUAL} == USUAL | carried
        assert [type(getattr(claim, name)) for name in USUAL] == [
            type((USUAL | carried)[name]) for name in USUAL
        ]
    by_id: dict[int, Claim] = {claim.id: claim for claim in held}
    assert by_id == {claim.id: claim for claim in (*one, *head, *many)}
