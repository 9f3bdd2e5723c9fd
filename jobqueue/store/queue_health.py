"""What `doctor` asks of the queues, jobs, workers and schedules in a database.

Each check is a function from `Facts` to findings. It reads indexes and a bounded number of rows.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cached_property
from shlex import quote
from typing import Any

from sqlalchemy import Connection, and_, func, inspect, select
from sqlalchemy.schema import CreateIndex

from jobqueue.config import WORKER
from jobqueue.doctor_findings import Finding, finding
from jobqueue.printable_text import listed, span
from jobqueue.records import counted, names_in
from jobqueue.states import WAITING, State
from jobqueue.store.clock import present_of
from jobqueue.store.database import Store
from jobqueue.store.names import queues_of_available
from jobqueue.store.redactions import parts_of, read_redactions
from jobqueue.store.schedules import ScheduleTable
from jobqueue.store.schema import jobs, metadata, queues, workers
from jobqueue.store.sql.predicates import AVAILABLE, IS_ALIVE, in_state

HOUR = 3600.0
DAY = 24 * HOUR
CLOCK_OFF = 2.0
"""Seconds by which a host's clock may differ from the database's."""
DUE_FOR_LONG = HOUR
"""Seconds for which the next job of a queue may have been due."""
OVER_TIMEOUT = 60.0
"""Seconds for which a handler may run beyond its timeout."""
NO_PROGRESS = HOUR
"""Seconds after which a handler that reports progress is stuck."""
ROWS_MANY = 10_000_000
ENDED_LONG_AGO = 31 * DAY
"""Seconds after which a job that succeeded would be deleted, by any usual retention."""
QUEUES_MAX = 200
"""Most queues whose next jobs are read."""
HEADS = 20
"""Jobs of each queue, next in the order of claims, that are read."""
SAMPLE = 1000
"""Newest jobs, and scheduled ones that are due first, that are read."""
RUNNING_MAX = 10_000
SHOWN = 3

_COLUMNS = [
    jobs.c[name]
    for name in ("id", "task", "queue", "state", "run_at", "lane", "lane_limit", "attempt")
]


class Facts:
    """What the checks share, read when it is asked for, in one snapshot."""

    def __init__(self, store: Store, connection: Connection, clock: Callable[[], datetime]) -> None:
        self.store = store
        self.connection = connection
        self.clock = clock
        store.backend.prefer_indexes(connection)

    def rows(self, statement: Any) -> list[Any]:
        """Return the rows of a statement."""
        return list(self.connection.execute(statement))

    @cached_property
    def present(self) -> datetime:
        """The database's present instant."""
        return present_of(self.connection)

    def since(self, instant: datetime) -> float:
        """Return the seconds that have passed, by the database's clock."""
        return (self.present - instant).total_seconds()

    @cached_property
    def workers(self) -> list[Any]:
        """All leases, with `is_alive`."""
        return self.rows(select(workers, IS_ALIVE.label("is_alive")).order_by(workers.c.name))

    @cached_property
    def alive(self) -> list[Any]:
        """The workers with a heartbeat within their lease."""
        return [row for row in self.workers if row.is_alive]

    @cached_property
    def switches(self) -> dict[str, Any]:
        """The switches of queues by name."""
        return {row.name: row for row in self.rows(select(queues))}

    def serving(self, queue: str) -> list[Any]:
        """Return the live workers that serve a queue, but for those that only end what they run."""
        return [row for row in self.alive if row.stopping_at is None and _serves(row, queue)]

    def is_left(self, queue: str) -> bool:
        """Return whether live workers serve a queue, and all of them only end what they run."""
        return not self.serving(queue) and any(_serves(row, queue) for row in self.alive)

    def is_stopped(self, queue: str) -> bool:
        """Return whether a pause, or a limit or rate of 0, stops a queue."""
        row = self.switches.get(queue)
        return row is not None and (
            row.paused_at is not None or _is_0(row.max_running) or _is_0(row.rate_count)
        )

    @cached_property
    def heads(self) -> dict[str, list[Any]]:
        """The next jobs of each queue with available jobs, those without a key first."""
        found: dict[str, list[Any]] = {}
        for part in AVAILABLE:
            names = self.connection.execute(queues_of_available(part)).scalars().all()
            for queue in filter(None, names[:QUEUES_MAX]):
                next_ = select(*_COLUMNS).where(part, jobs.c.queue == queue)
                order = [jobs.c.priority, jobs.c.run_at, jobs.c.id]
                if part is not AVAILABLE[0]:
                    order.insert(0, jobs.c.lane)
                found.setdefault(queue, []).extend(self.rows(next_.order_by(*order).limit(HEADS)))
        return found

    @cached_property
    def waiting(self) -> list[Any]:
        """A sample of the jobs that wait: next in their queues, due first, and the newest."""
        due = select(*_COLUMNS).where(in_state(State.SCHEDULED)).order_by(jobs.c.run_at)
        newest = select(*_COLUMNS).where(jobs.c.id > 0).order_by(jobs.c.id.desc())
        sample = [row for head in self.heads.values() for row in head]
        sample += [*self.rows(due.limit(SAMPLE)), *self.rows(newest.limit(SAMPLE))]
        known = {row.id: row for row in sample if row.state in WAITING}
        return [known[id_] for id_ in sorted(known)]

    @cached_property
    def running(self) -> list[Any]:
        """The jobs in the hands of workers."""
        columns = ("timeout", "started_at", "progress_at", "worker", "worker_id")
        held = select(*_COLUMNS, *(jobs.c[name] for name in columns)).where(
            jobs.c.worker_id.is_not(None)
        )
        return self.rows(held.order_by(jobs.c.worker_id).limit(RUNNING_MAX))


def clock(facts: Facts) -> Iterator[Finding]:
    """Tell a clock of this host that differs from the database's: due times are the database's."""
    before = facts.clock()
    present = present_of(facts.connection)
    after = facts.clock()
    early, late = (present - after).total_seconds(), (before - present).total_seconds()
    off = max(early, late)
    if off > CLOCK_OFF:
        where = "behind" if early > late else "ahead of"
        yield finding(
            "clock",
            f"the clock of this host is {span(off)} {where} the database's, by which jobs are due",
            "synchronise both clocks: timedatectl set-ntp true",
        )


def missing_index(facts: Facts) -> Iterator[Finding]:
    """Report indexes that were dropped."""
    inspector = inspect(facts.connection)
    for table in metadata.sorted_tables:
        there = {index["name"] for index in inspector.get_indexes(table.name)}
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if index.name not in there:
                statement = str(CreateIndex(index).compile(dialect=facts.connection.dialect))
                yield finding(
                    "missing_index",
                    f"the index {index.name} is missing: statements read whole tables",
                    f"{' '.join(statement.split())};",
                    [index.name],
                )


def unserved_queues(facts: Facts) -> Iterator[Finding]:
    """Tell queues with jobs that no live worker serves."""
    due = [row.queue for row in facts.waiting if row.run_at <= facts.present]
    left = [queue for queue in sorted({*facts.heads, *due}) if not facts.serving(queue)]
    leaving = [queue for queue in left if facts.is_left(queue)]
    lack = "no live worker serves {}, where jobs wait"
    if not facts.alive:
        lack = "no worker is alive, and jobs wait in {}"
    for sentence, names in (
        (lack, [queue for queue in left if queue not in leaving]),
        ("only workers that are draining serve {}, where jobs wait", leaving),
    ):
        if names:
            remedy = f"{WORKER} --queues {quote(','.join(names[:SHOWN]))}"
            said = sentence.format(_named("queue", names))
            yield finding("unserved_queues", said, remedy, names)


def unknown_tasks(facts: Facts) -> Iterator[Finding]:
    """Tell tasks of waiting jobs that no live worker of their queue knows."""
    known: dict[str, set[str]] = {}
    unknown: dict[str, None] = {}
    for row in facts.waiting:
        if row.queue not in known:
            serving = facts.serving(row.queue)
            known[row.queue] = {task for worker in serving for task in names_in(worker.tasks)}
        if known[row.queue] and row.task not in known[row.queue]:
            unknown[row.task] = None
    if unknown:
        names = sorted(unknown)
        yield finding(
            "unknown_tasks",
            f"jobs wait for {_named('task', names)}, which no live worker knows",
            "start a worker whose app has it, with --app; or delete them: "
            f"jobqueue delete --task {quote(names[0])} --dry-run",
            names,
        )


def due_for_long(facts: Facts) -> Iterator[Finding]:
    """Report queues whose next job is overdue, and scheduled jobs that stay scheduled."""
    late = [
        row
        for queue, head in sorted(facts.heads.items())
        if facts.serving(queue) and not facts.is_stopped(queue)
        for row in head[:1]
        if row.lane is None
    ]
    late += [row for row in facts.waiting if row.state == State.SCHEDULED and facts.alive]
    late = [row for row in late if facts.since(row.run_at) > DUE_FOR_LONG]
    if late:
        first = min(late, key=lambda row: row.run_at)
        yield finding(
            "due_for_long",
            f"job {first.id} ({first.task}) is next in queue {first.queue}, and has been due for "
            f"{span(facts.since(first.run_at))}",
            f"jobqueue why {first.id}",
            [row.id for row in late],
        )


def stuck_handlers(facts: Facts) -> Iterator[Finding]:
    """Tell handlers that run beyond their timeout, or no longer report progress."""
    stuck = []
    for row in facts.running:
        if row.started_at is None:
            continue
        lasted = facts.since(row.started_at)
        if row.timeout is not None and lasted > row.timeout + OVER_TIMEOUT:
            stuck.append(
                (row, f"has run for {span(lasted)}, over its timeout of {span(row.timeout)}")
            )
        elif row.progress_at is not None and row.progress_at > row.started_at:
            silent = facts.since(row.progress_at)
            if silent > NO_PROGRESS:
                stuck.append((row, f"has reported no progress for {span(silent)}"))
    if stuck:
        row, why = stuck[0]
        more = f", and {len(stuck) - 1:,} more are stuck" if len(stuck) > 1 else ""
        yield finding(
            "stuck_handlers",
            f"job {row.id} ({row.task}) on {row.worker} {why}{more}",
            f"jobqueue show {row.id}; to stop it: jobqueue cancel {row.id}",
            [row.id for row, _ in stuck],
        )


def lost_workers(facts: Facts) -> Iterator[Finding]:
    """Tell workers without a heartbeat whose jobs nobody has taken over yet."""
    held: dict[int, int] = {}
    for row in facts.running:
        held[row.worker_id] = held.get(row.worker_id, 0) + 1
    silent = [row for row in facts.workers if not row.is_alive]
    for row in silent:
        yield finding(
            "lost_workers",
            f"worker {row.name} on {row.host} has been silent for "
            f"{span(facts.since(row.heartbeat_at))}, with {counted(held.get(row.id, 0), 'job')}",
            f"start a worker, which takes its jobs over: {WORKER}",
            [row.name],
        )
    there = {row.id for row in facts.workers}
    orphans = [row for row in facts.running if row.worker_id not in there]
    if orphans and not facts.alive:
        yield finding(
            "lost_workers",
            f"{counted(len(orphans), 'job')} of workers that are gone, such as job {orphans[0].id} "
            f"of {orphans[0].worker}, and no worker is alive to take them over",
            WORKER,
            [row.id for row in orphans],
        )


def schedules(facts: Facts) -> Iterator[Finding]:
    """Tell schedules that differ from the code, and those that make no jobs any more."""
    for each in ScheduleTable(facts.store).find():
        if each.differs:
            yield finding(
                "schedules",
                f"schedule {each.name} differs from the code: an operator has changed it",
                f"jobqueue schedules reset {quote(each.name)}",
                [each.name],
            )
        if each.orphaned_at is not None or (each.orphaned and facts.alive):
            why = "the code does not declare it any more"
            if each.orphaned_at is None:
                why = f"no live worker knows its task {each.definition.task}"
            yield finding(
                "schedules",
                f"schedule {each.name} makes no jobs: {why}",
                f"jobqueue schedules remove {quote(each.name)}",
                [each.name],
            )


def limits_of_0(facts: Facts) -> Iterator[Finding]:
    """Tell queues and keys of which no job starts."""
    for name, row in sorted(facts.switches.items()):
        for switch, most in (("limit", row.max_running), ("rate", row.rate_count)):
            if _is_0(most):
                yield finding(
                    "limits_of_0",
                    f"queue {name} has the {switch} 0: none of its jobs starts",
                    f"jobqueue queues {switch} {quote(name)} none",
                    [name],
                )
    held = [row for row in facts.waiting if _is_0(row.lane_limit)]
    if held:
        yield finding(
            "limits_of_0",
            f"job {held[0].id} ({held[0].task}) has the concurrency limit 0: it does not start",
            f"raise concurrency_limit of the task; or delete: jobqueue delete {held[0].id}",
            [row.id for row in held],
        )


def _is_0(limit: int | None) -> bool:
    return limit is not None and limit <= 0


def retention(facts: Facts) -> Iterator[Finding]:
    """Tell a table of many rows from which nothing is deleted."""
    ends = (select(end(jobs.c.id)).scalar_subquery() for end in (func.min, func.max))
    first, last = facts.rows(select(*ends))[0]
    rows = 0 if last is None else last - first + 1
    if rows < ROWS_MANY:
        return
    succeeded = and_(in_state(State.SUCCEEDED), jobs.c.finished_at.is_not(None))
    oldest = select(jobs.c.finished_at).where(succeeded).order_by(jobs.c.finished_at).limit(1)
    for row in facts.rows(oldest):
        age = facts.since(row.finished_at)
        if age > ENDED_LONG_AGO:
            yield finding(
                "retention",
                f"about {rows:,} jobs are kept, and the oldest succeeded {span(age)} ago: "
                "retention is off",
                "jobqueue prune --older-than 7d --failed-older-than 30d; and set keep_succeeded= "
                "and keep_failed= of the workers",
            )


def redactions(facts: Facts) -> Iterator[Finding]:
    """Tell tasks of which the database does not say any more what they hide."""
    rows = read_redactions(facts.store, facts.connection)
    for task in sorted(str(task) for task, text in rows.items() if parts_of(text) is None):
        literal = task.replace("'", "''")
        yield finding(
            "redactions",
            f"all arguments of task {task} are hidden: jobqueue_redactions does not say which",
            f"DELETE FROM jobqueue_redactions WHERE task = '{literal}'; and at once "  # noqa: S608
            "restart its workers, which write it again: in between its arguments are shown",
            [task],
        )


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    clock,
    missing_index,
    unserved_queues,
    unknown_tasks,
    due_for_long,
    stuck_handlers,
    lost_workers,
    schedules,
    limits_of_0,
    retention,
    redactions,
)


def _serves(worker: Any, queue: str) -> bool:
    return worker.queues is None or queue in names_in(worker.queues)


def _named(noun: str, names: list[str]) -> str:
    return f"{noun if len(names) == 1 else noun + 's'} {listed(names, SHOWN)}"
