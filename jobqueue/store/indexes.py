"""The indexes of the jobs table, and the conditions of those that hold a part of it."""

from sqlalchemy import Index, text

from jobqueue.states import LIVE

BEGUN = text(
    "lane IS NOT NULL AND fence > 0 AND (state = 'running'"
    " OR lane_strict = 1 AND (state = 'scheduled' OR state = 'available'))"
)
"""True for a job that has a place in its lane: one that runs, or a strict one between attempts."""
EXPIRES = text(
    "expires_at IS NOT NULL AND attempt = 0 AND snoozes = 0 AND crashes = 0"
    " AND (state = 'scheduled' OR state = 'available')"
)
"""True for a job that is cancelled at `expires_at`: it waits and has not begun before."""
AWAITS_KEY = text("awaited_key IS NOT NULL AND state = 'scheduled'")

_LIVE = f"state IN ({', '.join(repr(state.value) for state in LIVE)})"
_HOLDS_KEY = text(
    "unique_key IS NOT NULL AND (unique_until = 'deleted'"
    f" OR unique_until = 'finished' AND {_LIVE}"
    f" OR unique_until = 'started' AND key_released = 0 AND {_LIVE})"
)


def partial(name: str, *columns: str, where: object, unique: bool = False) -> Index:
    """Return an index of the rows for which the text `where` is true: it takes no parameters."""
    return Index(name, *columns, unique=unique, postgresql_where=where, sqlite_where=where)


def indexes() -> list[Index]:
    """Return the indexes of the jobs table."""
    free = text("state = 'available' AND lane IS NULL")
    of_lanes = text("lane IS NOT NULL AND state = 'available'")
    new = text("lane IS NOT NULL AND state = 'available' AND id > 0")  # id: for no other query
    # Not `state IN (…)`: SQLite would evaluate it for every claim (measured: a fifth of a drain's
    # SQL).
    final = text("finished_at IS NOT NULL")
    return [
        partial("jobqueue_jobs_claim", "queue", "priority", "run_at", "id", where=free),
        partial("jobqueue_jobs_lane", "queue", "lane", "priority", "run_at", "id", where=of_lanes),
        partial("jobqueue_jobs_lane_new", "id", where=new),
        partial("jobqueue_jobs_lane_begun", "lane", where=BEGUN),
        partial("jobqueue_jobs_due", "run_at", "queue", where=text("state = 'scheduled'")),
        partial("jobqueue_jobs_expires", "expires_at", where=EXPIRES),
        partial("jobqueue_jobs_awaits", "awaited_key", where=AWAITS_KEY, unique=True),
        partial("jobqueue_jobs_held", "worker_id", where=text("worker_id IS NOT NULL")),
        partial("jobqueue_jobs_final", "state", "finished_at", where=final),
        # Every move keeps it valid, except a retry, refused while another job holds the key.
        partial("jobqueue_jobs_unique", "unique_key", where=_HOLDS_KEY, unique=True),
    ]
