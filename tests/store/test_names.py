"""The names in use, which a typing mistake is told by."""

from sqlalchemy import insert

from jobqueue import JobQueue
from jobqueue.store.clock import now
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind, counters, schedules, workers
from jobqueue.store.schema import jobs as jobs_table
from jobqueue.store.names import NEWEST, Names, names_in_use


def test_names_come_from_workers_switches_counters_the_waiting_queues_and_the_newest_jobs(
    url: str,
) -> None:
    with JobQueue(url) as queue:
        store = queue.store
        assert names_in_use(store) == Names()
        Pauses(store).pause(PauseKind.QUEUE, "switched")
        worker = {"host": "h", "pid": 1, "concurrency": 1, "tasks": '["lives"]'}
        old = {"task": "old", "state": "succeeded", "queue": "old"}
        with store.write() as connection:
            connection.execute(
                insert(workers),
                [
                    worker | {"name": "alive", "queues": '["served"]', "lease": 3600.0},
                    worker | {"name": "me", "queues": '["mine"]', "lease": 3600.0},
                ],
            )
            connection.execute(
                insert(workers).values(
                    worker | {"name": "dead", "queues": '["gone"]', "lease": -1.0}
                )
            )
            connection.execute(
                insert(counters).values(minute=now(), queue="counted", task="done", succeeded=1)
            )
            connection.execute(insert(jobs_table).values(old | {"tags": '["old"]'}))
            report = {"task": "t", "kind": "every", "expression": "60", "source": "code"}
            report |= {"catch_up": "latest", "overlap": "skip"}
            names = [{**report, "name": name} for name in ("nightly", "$(rm x)")]
            connection.execute(insert(schedules), names)
            connection.execute(
                insert(jobs_table),
                [{**old, "queue": name, "state": "available"} for name in "bac"],
            )
            connection.execute(
                insert(jobs_table),
                [{**old, "task": "new", "queue": "new"} for _ in range(NEWEST - 2)],
            )
            connection.execute(
                insert(jobs_table),
                [
                    {
                        **old,
                        "task": "new",
                        "queue": "new",
                        "tags": '["x", "y", "$(rm x)", "a\\nb"]',
                    },
                    {**old, "task": "../x", "queue": "é`x`", "tags": '"no array"'},
                ],
            )
        assert names_in_use(store, besides="me") == Names(
            frozenset(["switched", "served", "counted", "new", *"abc"]),
            frozenset(["lives", "done", "new"]),
            frozenset(["x", "y"]),
            frozenset(["nightly"]),
        )
        assert "mine" in names_in_use(store).queues
