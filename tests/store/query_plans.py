"""How each database plans a statement: the indexes that it uses, the tables that it scans."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable, event, text

from jobqueue.store.database import Store


class Plan(NamedTuple):
    indexes: set[str]
    scans: list[str]
    shown: str


class Plans:
    """Runs statements and takes them back, and says how each was planned with its own values."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.on_sqlite = store.backend.single_writer
        with store.read() as connection:
            rows = connection.execute(
                text("SELECT id FROM jobqueue_jobs WHERE state = 'running' ORDER BY id")
            )
            self.running = list(rows.scalars())

    def of(self, statement: Executable, parameters: dict[str, Any] | None = None) -> Plan:
        return self.of_each(lambda connection: connection.execute(statement, parameters or {}))[0]

    def of_each(self, work: Callable[[Connection], object]) -> list[Plan]:
        """The plans of every statement about jobs that some work in a transaction executes."""
        seen: list[tuple[str, Any]] = []

        def see(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if "jobqueue_" in statement or "set_config('enable" in statement:
                seen.append((statement, parameters))

        with rolled_back(self.store) as connection:
            event.listen(connection, "before_cursor_execute", see)
            work(connection)
            event.remove(connection, "before_cursor_execute", see)
        plans = []
        with rolled_back(self.store) as connection:
            for statement, parameters in seen:
                if "set_config('enable" in statement:
                    connection.exec_driver_sql(statement)
                    continue
                explain = "EXPLAIN QUERY PLAN " if self.on_sqlite else "EXPLAIN (FORMAT JSON) "
                rows = connection.exec_driver_sql(explain + statement, parameters).all()
                plans.append(read_sqlite(rows) if self.on_sqlite else read_postgres(rows[0][0]))
        return plans


@contextmanager
def rolled_back(store: Store) -> Iterator[Connection]:
    with store.engine.connect().execution_options(jobqueue_write=True) as connection:
        transaction = connection.begin()
        yield connection
        transaction.rollback()


def read_sqlite(rows: Any) -> Plan:
    lines = [row[-1] for row in rows]
    indexes, scans = set(), []
    for line in lines:
        if "USING INTEGER PRIMARY KEY" in line and "jobqueue_jobs" in line:
            indexes.add("jobqueue_jobs_pkey")
        elif "jobqueue_jobs" in line and " INDEX " in line:
            indexes.add(line.split(" INDEX ")[1].split()[0])
        elif line.startswith("SCAN jobqueue_jobs"):
            scans.append(line)
    return Plan(indexes, scans, "\n".join(lines))


def read_postgres(plan: Any) -> Plan:
    indexes, scans, shown = set(), [], []

    def read(node: Any, depth: int) -> None:
        relation = node.get("Relation Name", "")
        looked_up = node.get("Index Cond", "")
        shown.append(
            f"{'  ' * depth}{node['Node Type']} {node.get('Index Name', relation)} {looked_up}"
        )
        if node.get("Index Name", "").startswith("jobqueue_jobs"):
            indexes.add(node["Index Name"])
        if node["Node Type"] == "Tid Scan":
            indexes.add(f"{relation}_ctid")
        if node["Node Type"] == "Seq Scan" and relation == "jobqueue_jobs":
            scans.append(shown[-1])
        for child in node.get("Plans", []):
            read(child, depth + 1)

    read(plan[0]["Plan"], 0)
    return Plan(indexes, scans, "\n".join(shown))


def uses(plan: Plan, *indexes: str) -> bool:
    assert plan.scans == [], plan.shown
    assert plan.indexes == {f"jobqueue_jobs_{index}" for index in indexes}, plan.shown
    return True


def looks_up(plan: Plan, condition: str) -> bool:
    """The index leads to the rows with `condition`: it does not read others and leave them."""
    assert condition in plan.shown.replace(" ", ""), plan.shown
    return True


def within(plans: Plans, connection: Connection) -> Any:
    """A store whose transactions all are the given one, to be rolled back."""

    class Within(Store):
        def transact(self, work: Any) -> Any:
            return work(connection)

        @contextmanager
        def read(self) -> Iterator[Connection]:
            yield connection

    store = Within(plans.store.url)
    store.engine.dispose()
    return store
