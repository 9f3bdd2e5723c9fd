"""The tables. The comments of columns document what an operator may read with SQL.

Views and migrations are in `migrations/`; a test compares them with this file.
"""

from enum import IntEnum, StrEnum

from sqlalchemy import Column, Index, MetaData, Table, text

from jobqueue.states import State
from jobqueue.store.checks import Seconds, Whole, checks
from jobqueue.store.clock import Instant, now
from jobqueue.store.column_types import BigInteger, Double, Integer, SmallInteger, Text
from jobqueue.store.indexes import indexes, partial

REVISION = "0005"
"""The schema revision that this code runs on."""

VERSION_TABLE = "jobqueue_alembic_version"
PREFIX = "jobqueue_"

metadata = MetaData()


class CounterKind(IntEnum):
    """The kind of a counters row. Totals are separate, so that reading them scans no minutes."""

    WRITTEN = 0
    """As written by a batch: not yet added to the total and to its minute."""
    TOTAL = 1
    """The sum of a queue and task, kept for ever."""
    PERIOD = 2
    """The sum of one minute, or of an hour of errors, which the total contains; kept for days."""


class LaneKind(IntEnum):
    """What a row of lanes is of."""

    KEY = 0
    """The jobs of a concurrency key."""
    QUEUE = 1
    """A queue with a limit, a rate or fair shares."""
    SWEEP = 2
    """Not a lane: parked_until is when a worker may look for missing lanes again."""


LaneId = tuple[LaneKind, str]
"""A lane's kind and name: a key may have the name of a queue."""


class Parked(IntEnum):
    """Why workers pass a lane over, until its time is up or something brings it back."""

    NO = 0
    FULL = 1
    """No job of it may start before one has ended, or before the queue's rate allows it."""
    EMPTY = 2
    """No job of it waits."""


class PauseKind(StrEnum):
    """What a pause is of. That of a queue is in its row of queues, not in pauses."""

    QUEUE = "queue"
    TASK = "task"
    TAG = "tag"


_Id = BigInteger().with_variant(Integer, "sqlite")

jobs = Table(
    "jobqueue_jobs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("task", Text, nullable=False),
    Column("queue", Text, nullable=False, server_default="default"),
    Column("state", Text, nullable=False, server_default=State.AVAILABLE.value),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("args", Text, nullable=False, server_default='{"args":[],"kwargs":{}}'),
    Column("tags", Text),  # a JSON array of names
    Column("run_at", Instant, nullable=False, server_default=now()),
    Column("attempt", Integer, nullable=False, server_default="0"),  # charged so far
    Column("max_attempts", Integer, nullable=False, server_default="10"),
    Column("base_max_attempts", Integer),  # max_attempts of the enqueue, after an operator's retry
    Column("crashes", Integer, nullable=False, server_default="0"),  # in a row
    Column("snoozes", Integer, nullable=False, server_default="0"),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("worker_id", BigInteger),  # the lease that holds the claim; null unless running
    Column("worker", Text),  # the name of the worker that runs the job, or ran it last
    Column("timeout", Double),  # seconds per attempt
    Column("backoff", Text),  # JSON; null: the task's own
    Column("unique_key", Text),
    Column("unique_until", Text),
    Column("progress", Double),  # 0 … 1
    Column("progress_message", Text),
    Column("cancel_requested_at", Instant),
    Column("reason", Text),  # why the job is in its state, if the state alone does not say it
    Column("result", Text),  # JSON
    Column("created_at", Instant, nullable=False, server_default=now()),
    Column("started_at", Instant),  # when the last attempt was claimed
    Column("finished_at", Instant),
    # 1 once a job that holds its unique key until it starts has started; never 0 again
    Column("key_released", SmallInteger, nullable=False, server_default="0"),
    Column("deadline_at", Instant),  # no attempt starts after it; null: no deadline
    Column("child_crashes", Integer, nullable=False, server_default="0"),  # of its child, in a row
    Column("headers", Text),  # a JSON object of texts, for middleware
    Column("scheduled_for", Instant),  # of a job that a schedule made: the instant it is for
    Column("expires_at", Instant),  # not begun by then: cancelled; null: never
    Column("lane", Text),  # the job's concurrency key; null: none
    Column("lane_limit", Whole(0)),  # most jobs of the lane that run at once; null: no limit
    Column("lane_weight", Seconds),  # its share in a fair queue; null: 1
    Column("lane_strict", SmallInteger),  # 1: jobs of the lane run in order, also between attempts
    Column("progress_at", Instant),  # when progress was written last
    Column("awaited_key", Text),  # the unique key that it takes once no other job holds it
    *checks(),
    *indexes(),
    sqlite_autoincrement=True,  # An id is never reused, even if the newest job is deleted.
)

attempts = Table(  # A row for each attempt that did not succeed.
    "jobqueue_attempts",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("fence", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, nullable=False),
    Column("worker", Text),
    Column("started_at", Instant),
    Column("finished_at", Instant, nullable=False),
    Column("outcome", Text, nullable=False),  # errored, timed out, snoozed, released, lost, …
    Column("error_type", Text),  # module.qualname; of a builtin exception its bare name
    Column("error_message", Text),
    Column("traceback", Text),
    Column("exit_signal", Text),  # that killed the attempt's child process, such as SIGKILL
    Column("peak_memory", BigInteger),  # bytes of that process
    Column("error_signature", Text),  # task, type and place: the same for errors of one cause
    Index("jobqueue_attempts_finished", "finished_at"),
    partial(
        "jobqueue_attempts_error",
        "error_signature",
        "job_id",
        where=text("error_signature IS NOT NULL"),
    ),
)

workers = Table(  # A row is a lease: a worker without its row holds no claim.
    "jobqueue_workers",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("boot_id", Text),  # same boot_id and pid_namespace: pids can be compared
    Column("pid_namespace", Text),
    Column("process_started", Double),  # seconds since boot, from the kernel: pids are reused
    Column("wakeup_address", Text),  # to which an enqueue on this host sends its wake-up
    Column("queues", Text),  # a JSON array; null: all
    Column("tasks", Text, nullable=False),  # a JSON array of the task names that the worker knows
    Column("concurrency", Integer, nullable=False),
    Column("lease", Double, nullable=False),  # seconds
    Column("heartbeats", BigInteger, nullable=False, server_default="0"),
    Column("running", Integer, nullable=False, server_default="0"),
    Column("processed", BigInteger, nullable=False, server_default="0"),
    Column("errored", BigInteger, nullable=False, server_default="0"),
    Column("started_at", Instant, nullable=False, server_default=now()),
    Column("heartbeat_at", Instant, nullable=False, server_default=now()),
    Column("stopping_at", Instant),  # when it was asked to stop, and waits for what runs; or null
    Index("jobqueue_workers_here", "boot_id", "pid_namespace", "id"),
    sqlite_autoincrement=True,
)

queues = Table(  # A row for each queue that has, or had, a pause or a limit.
    "jobqueue_queues",
    metadata,
    Column("name", Text, primary_key=True),
    Column("paused_at", Instant),
    Column("max_pending", Whole),  # most scheduled and available jobs; null: no limit
    Column("when_full", Text),  # what an enqueue does at the limit: wait or reject
    Column("max_running", Whole(0)),  # most jobs that run at once in the fleet; null: no limit
    # At most rate_count starts in rate_period seconds, evenly spaced but for a burst; null: no rate
    Column("rate_count", Whole(0)),
    Column("rate_period", Seconds),
    Column("rate_burst", Whole),  # starts that may run ahead of the even spacing; null: 1
    Column("fair", SmallInteger),  # 1: concurrency keys share the queue by weight
    Column("declared", Text),  # JSON: what the code declared last of these; null: nothing
)

redactions = Table(  # A row for each task that hides arguments from those who look at its jobs.
    "jobqueue_redactions",
    metadata,
    Column("task", Text, primary_key=True),
    Column("hidden", Text, nullable=False),  # JSON: names, places from 0, the first of *args
)

pauses = Table(  # A row for each task and each tag that is paused.
    "jobqueue_pauses",
    metadata,
    Column("kind", Text, primary_key=True),  # PauseKind
    Column("name", Text, primary_key=True),
    Column("paused_at", Instant, nullable=False, server_default=now()),
    Column("paused_by", Text),  # the operator; null: a program
)

lanes = Table(  # A row for each concurrency key with waiting jobs, and for each limited queue.
    "jobqueue_lanes",
    metadata,
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),  # LaneKind
    Column("name", Text, primary_key=True),  # the key, or the queue
    Column("queue", Text, nullable=False),  # in which workers look for its jobs next
    Column("priority", Integer, nullable=False, server_default="0"),  # of its next job
    Column("due_at", Instant),  # run_at of its next job
    Column("turn", Double, nullable=False, server_default="0"),  # virtual time, for fair shares
    Column("plain_turn", Double, nullable=False, server_default="0"),  # of a queue's other jobs
    # Seconds since 1970: when the next start would be due if all were evenly spaced
    Column("next_start", Double, nullable=False, server_default="0"),
    Column("parked", SmallInteger, nullable=False, server_default="0"),  # Parked
    Column("parked_until", Double, nullable=False, server_default="0"),  # seconds since 1970
    partial("jobqueue_lanes_due", "queue", "priority", "due_at", where=text("parked = 0")),
    partial("jobqueue_lanes_turn", "queue", "turn", where=text("parked = 0")),
)


def _zeros(type_: "type[BigInteger | Double]", *names: str) -> list[Column[object]]:
    return [Column(name, type_, nullable=False, server_default="0") for name in names]


counters = Table(  # Counts, appended by every batch; the pruner compacts the rows of one minute.
    "jobqueue_counters",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("minute", Instant, nullable=False),
    Column("queue", Text, nullable=False),
    Column("task", Text, nullable=False),
    # runs: attempts in the sums; times are in seconds, a wait is from due to start
    *_zeros(BigInteger, "succeeded", "failed", "cancelled", "errored_attempts", "runs"),
    *_zeros(Double, "duration", "duration_max", "wait", "wait_max"),
    Column("kind", SmallInteger, nullable=False, server_default="0"),  # CounterKind
    Index("jobqueue_counters_minute", "kind", "minute"),
)

error_counts = Table(  # Attempts that errored, appended like the counters; added up by hour.
    "jobqueue_error_counts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("hour", Instant, nullable=False),
    Column("error_id", Text, nullable=False),  # of task, error_type and place: their digest
    Column("task", Text, nullable=False),
    Column("error_type", Text, nullable=False),
    Column("place", Text),  # file and function of the user's own that raised it
    Column("message", Text),  # of one of them, the last
    *_zeros(BigInteger, "attempts", "failed"),  # failed: jobs that it was the end of
    *(Column(name, Instant, nullable=False) for name in ("first_at", "last_at")),
    Column("kind", SmallInteger, nullable=False, server_default="0"),  # CounterKind
    Index("jobqueue_error_counts_hour", "kind", "hour"),
)

history = Table(  # Figures of each worker per minute, by task and queue; task '': the whole worker.
    "jobqueue_history",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("minute", Instant, nullable=False),
    Column("worker", Text, nullable=False),
    Column("task", Text, nullable=False),
    *_zeros(BigInteger, "processed", "errored", "failed", "snoozed"),
    Column("duration", Double, nullable=False, server_default="0"),  # seconds, summed
    Column("duration_p95", Double),
    Column("wait", Double, nullable=False, server_default="0"),  # from due to start, summed
    Column("wait_p95", Double),
    *_zeros(Double, "busy", "slots"),  # seconds of slots with a handler, and of all slots
    Column("queue", Text),  # null: the whole worker, or one of too many queues
    *(Column(name, Double) for name in ("duration_p50", "wait_p50")),
    Column("waiting", BigInteger),  # available jobs of all queues; null: another row has them
    Index("jobqueue_history_minute", "minute"),
    partial("jobqueue_history_waiting", "minute", "waiting", where=text("waiting IS NOT NULL")),
)

meta = Table(  # instance: a random id, the same for all connections to one database.
    "jobqueue_meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

schedules = Table(
    "jobqueue_schedules",
    metadata,
    Column("name", Text, primary_key=True),
    Column("task", Text, nullable=False),
    Column("kind", Text, nullable=False),  # cron or every
    Column("expression", Text, nullable=False),  # five fields, or seconds
    Column("tz", Text),  # of a cron expression, such as Europe/Zurich
    Column("args", Text, nullable=False, server_default='{"args":[],"kwargs":{}}'),
    Column("options", Text),  # JSON: the options of its jobs that are not the defaults
    Column("catch_up", Text, nullable=False),  # latest, all or none
    Column("overlap", Text, nullable=False),  # skip or allow
    Column("source", Text, nullable=False),  # code or operator
    Column("declared", Text),  # JSON: what the code declares; null: it declares nothing
    Column("paused_at", Instant),
    Column("paused_by", Text),
    Column("next_at", Instant),  # the next tick; it only grows
    Column("nominal_at", Instant),  # the last tick that is done with, whether it made a job or not
    Column("last_job_id", BigInteger),
    Column("orphaned_at", Instant),  # since when no live worker has declared its task
    partial("jobqueue_schedules_next", "next_at", where=text("paused_at IS NULL")),
)

audit = Table(  # A row for each operator's action, written in the action's transaction.
    "jobqueue_audit",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("at", Instant, nullable=False, server_default=now()),
    Column("actor", Text, nullable=False),  # who: a user of a host, or a client of the HTTP API
    Column("verb", Text, nullable=False),
    Column("target", Text, nullable=False),  # JSON: the ids or the filter, a queue or a schedule
    Column("changed", BigInteger, nullable=False, server_default="0"),  # how many
    Column("before", Text),  # JSON: what it replaced; null: nothing that can be put back
    sqlite_autoincrement=True,
)
