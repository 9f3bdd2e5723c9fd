"""The ceiling's one table and its two statements: the least that claims and completes safely."""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, SmallInteger, Table, Text
from sqlalchemy import bindparam, cast, func, select, update
from sqlalchemy.dialects import postgresql

jobs = Table(
    "ceiling_jobs",
    MetaData(),
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    *(Column(name, Text, nullable=False) for name in ("queue", "task", "args")),
    Column("state", Text, nullable=False, server_default="available"),
    *(
        Column(name, SmallInteger, nullable=False, server_default="0")
        for name in ("priority", "attempt")
    ),
    Column("max_attempts", SmallInteger, nullable=False, server_default="5"),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    *(
        Column(name, BigInteger)
        for name in ("run_at", "worker_id", "created_at", "started_at", "finished_at")
    ),
    *(Column(name, Text) for name in ("unique_key", "result")),
)
waiting = jobs.c.state == "available"
Index(
    "ceiling_claim",
    jobs.c.queue,
    jobs.c.priority,
    jobs.c.id,
    postgresql_where=waiting,
    sqlite_where=waiting,
)

candidates = (
    select(jobs.c.id)
    .where(
        waiting, jobs.c.queue == "default", jobs.c.priority == 0, jobs.c.id > bindparam("cursor")
    )
    .order_by(jobs.c.id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
    .cte("candidates")
)
CLAIM = (
    update(jobs)
    .where(jobs.c.id == candidates.c.id)
    .values(
        state="running",
        attempt=jobs.c.attempt + 1,
        fence=jobs.c.fence + 1,
        worker_id=1,
        started_at=bindparam("now"),
    )
    .returning(jobs.c.id, jobs.c.task, jobs.c.args, jobs.c.attempt, jobs.c.fence)
)


def finish_statement(*, on_postgres: bool) -> Any:
    if on_postgres:
        arrays = (("ids", BigInteger), ("fences", BigInteger), ("results", Text))
        arrays = (cast(bindparam(name), postgresql.ARRAY(type_)) for name, type_ in arrays)
        outcomes: Any = func.unnest(*arrays).table_valued("id", "fence", "result").render_derived()
    else:
        rows = func.json_each(bindparam("batch")).table_valued("value")
        columns = enumerate(("id", "fence", "result"))
        outcomes = select(
            *(func.json_extract(rows.c.value, f"$[{i}]").label(name) for i, name in columns)
        ).subquery("outcomes")
    return (
        update(jobs)
        .where(jobs.c.id == outcomes.c.id, jobs.c.fence == outcomes.c.fence)
        .values(
            state="succeeded",
            fence=jobs.c.fence + 1,
            worker_id=None,
            finished_at=bindparam("now"),
            result=outcomes.c.result,
        )
        .returning(jobs.c.id)
    )
