"""A database with jobs in lanes, for the tests of lanes."""

from typing import Any

import pytest
from sqlalchemy import select

from jobqueue.records import Claim
from jobqueue.store.claims import WorkerRef
from jobqueue.store.database import Store
from jobqueue.store.lanes import LaneClaims, Lanes
from jobqueue.store.schema import LaneId, LaneKind, lanes, queues
from tests.store.conftest import StoreKit


def ids(*names: str) -> list[LaneId]:
    """The lanes of keys and of queues with these names."""
    return [(kind, name) for kind in (LaneKind.KEY, LaneKind.QUEUE) for name in names]


class LaneBench:
    """A database with jobs in lanes, and a worker that claims them."""

    def __init__(self, kit: StoreKit) -> None:
        self.kit = kit
        self.lanes = Lanes(kit.store)
        self.holder: WorkerRef = kit.worker()

    def add(self, key: str | None, *, limit: int | None = None, strict: bool = False,
            weight: float | None = None, queue: str = "default", count: int = 1) -> list[int]:  # fmt: skip
        ids: list[int] = self.kit.add_many(count, queue=queue)
        self.kit.change(
            *ids, lane=key, lane_limit=limit, lane_strict=int(strict), lane_weight=weight
        )
        return ids

    def switch(self, queue: str = "default", **switches: Any) -> None:
        with self.kit.store.write() as connection:
            connection.execute(queues.insert().values(name=queue, **switches))

    def sweep(self) -> None:
        self.lanes.sweep()

    def try_claim(self, limit: int = 100, queue: str = "default", holder: WorkerRef | None = None) -> LaneClaims:  # fmt: skip
        with self.kit.store.write() as connection:
            return self.lanes.claim(connection, holder or self.holder, queue, limit)

    def claim(self, limit: int = 100, queue: str = "default") -> list[Claim]:
        self.sweep()
        return list(self.try_claim(limit, queue).claims)

    def ids(self, limit: int = 100, queue: str = "default") -> list[int]:
        return [claim.id for claim in self.claim(limit, queue)]

    def end(self, *claims: Claim, key: str | None = None) -> None:
        self.kit.finish(self.holder, *(self.kit.succeeded(claim) for claim in claims))
        if key is not None:
            self.unpark(key)

    def unpark(self, *names: str) -> set[str]:
        """Bring keys and queues of these names back; return the names of those that others lock."""
        with self.kit.store.write() as connection:
            found = self.lanes.unpark(connection, ids(*names))
        return {name for _, name in found.locked}

    def add_new(self, after: int = 0) -> tuple[int, set[str]]:
        return add_new(self.kit.store, self.lanes, after)

    def rows(self) -> dict[str, Any]:
        with self.kit.store.read() as connection:
            every = connection.execute(select(lanes).where(lanes.c.kind != LaneKind.SWEEP))
            return {row.name: row for row in every}


def add_new(store: Store, lanes: Lanes, after: int) -> tuple[int, set[str]]:
    """Find and add the lanes of new jobs, as a worker does; return the newest id, and what is locked."""
    with store.read() as connection:
        found = lanes.find_new(connection, after)
    return found.newest, {name for _, name in lanes.add(found)} if found.is_any else set()


@pytest.fixture
def bench(kit: StoreKit) -> LaneBench:
    with kit.store.write() as connection:
        connection.execute(lanes.delete())
    return LaneBench(kit)
