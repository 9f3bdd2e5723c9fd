"""The condition of a `JobFilter`: which jobs a list or a bulk verb is about."""

from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    true,
)

from jobqueue.records import JobFilter
from jobqueue.states import State
from jobqueue.store.schema import attempts, jobs
from jobqueue.store.sql.predicates import in_state

_error = attempts.alias("error")
_later = attempts.alias("later")
_IS_LAST_ERROR = and_(
    # By an expression, so that nothing begins with the jobs: those of a million may be the newest.
    jobs.c.id == _error.c.job_id + literal_column("0"),
    in_state(*(state for state in State if state is not State.SUCCEEDED)),
    ~exists().where(
        _later.c.job_id == _error.c.job_id,
        _later.c.fence > _error.c.fence,
        _later.c.error_type.is_not(None),
    ),
)


def matches(wanted: JobFilter, *, by_id: bool = True) -> ColumnElement[bool]:
    """Return the condition of a filter. It joins a job with one attempt where it names an error.

    With `by_id` it names a range of ids: SQLite then reads by the primary key, in its order.
    """
    clauses: list[ColumnElement[bool]] = []
    if wanted.ids is not None:
        # Literals: the list may exceed the number of parameters that a statement can have.
        ids: BindParameter[Any] = bindparam(
            "in_ids", wanted.ids, expanding=True, literal_execute=True
        )
        clauses.append(jobs.c.id.in_(ids))
    if wanted.state is not None:
        clauses.append(in_state(wanted.state))
    if wanted.task is not None:
        clauses.append(jobs.c.task == wanted.task)
    if wanted.tasks is not None:
        clauses.append(jobs.c.task.in_(wanted.tasks))
    if wanted.queue is not None:
        clauses.append(jobs.c.queue == wanted.queue)
    if wanted.tag is not None:
        # Not LIKE, which ignores case on one of the databases.
        clauses.append(func.replace(jobs.c.tags, f'"{wanted.tag}"', "") != jobs.c.tags)
    if wanted.since is not None:
        clauses.append(jobs.c.created_at >= wanted.since)
    if wanted.error is not None:
        clauses += [_error.c.error_signature == wanted.error, _IS_LAST_ERROR]
    return and_(jobs.c.id > 0 if by_id else true(), *clauses)


def id_of(wanted: JobFilter) -> ColumnElement[int]:
    """Return the column that has a job's id in the index that finds what matches.

    Pages in its order need no sort; each page of a million jobs with one error would sort them all.
    """
    return jobs.c.id if wanted.error is None else _error.c.job_id
