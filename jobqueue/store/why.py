"""Why a job is where it is: the claim's own predicates, one by one, until one holds it back.

Each reason is a function in `NOT_AVAILABLE` or `HELD_BACK`, in the order in which a user has to
know them: a pause before a missing worker, that before a limit. The last one always answers.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from shlex import quote
from typing import Any

from jobqueue.config import WORKER
from jobqueue.literal_types import WhyCode
from jobqueue.printable_text import listed, span
from jobqueue.records import counted
from jobqueue.states import State
from jobqueue.store.jobs import Jobs
from jobqueue.store.schema import PauseKind
from jobqueue.store.sql.why import COUNTED_MAX, LOOKED_AT_MAX
from jobqueue.store.why_facts import Before, Facts


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is where it is: `sentence`, and what to do about it."""

    id: int
    code: WhyCode
    sentence: str
    advice: str
    jobs: tuple[int, ...] = ()
    """The jobs that hold it back, at most 100."""
    names: tuple[str, ...] = ()
    """The queue, key, task or worker that the sentence is about."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `why --json` prints."""
        return asdict(self) | {"jobs": list(self.jobs), "names": list(self.names)}


def explain(jobs: Jobs, id_: int) -> Explanation | None:
    """Return why the job is where it is; None if there is no such job.

    Takes milliseconds for any number of jobs: it looks at up to 20,000 of those in front.
    """
    while (job := jobs.get(id_)) is not None:
        with jobs.store.read() as connection:
            facts = Facts(jobs.store, connection, job)
            if not facts.are_current:
                continue
            reasons = HELD_BACK if facts.verdicts.may_claim else NOT_AVAILABLE
            found = (reason(facts) for reason in reasons)
            return next(explanation for explanation in found if explanation is not None)
    return None


def _because(
    facts: Facts, code: WhyCode, sentence: str, advice: str, *names: str, jobs: tuple[int, ...] = ()
) -> Explanation:
    return Explanation(facts.job.id, code, sentence, advice, jobs, names)


# What is not available: it has ended, it runs, or it is not due


def _ended(facts: Facts) -> Explanation | None:
    job = facts.job
    if not job.final:
        return None
    ago = f"{span(facts.since(job.finished_at))} ago"
    if job.state is State.SUCCEEDED:
        on = f" on {job.worker}" if job.worker else ""
        again = f"nothing; to run it once more: jobqueue retry --succeeded {job.id}"
        return _because(facts, "succeeded", f"succeeded {ago}{on}{_in_brackets(job.reason)}", again)
    retry = f"to run it again: jobqueue retry {job.id}"
    if job.state is State.CANCELLED:
        when = ", before it began" if job.started_at is None else ""
        why = f": {job.reason}" if job.reason else ""
        return _because(facts, "cancelled", f"cancelled {ago}{when}{why}", retry)
    parts = [f"{job.attempt:,} of {counted(job.max_attempts, 'attempt')}"]
    if job.reason:
        parts.append(job.reason)
    if job.error is not None:
        parts.append(f"last {job.error.type}")
    look = f"look at the error: jobqueue show {job.id}; then {retry}"
    return _because(facts, "failed", f"failed: {', '.join(parts)}", look)


def _running(facts: Facts) -> Explanation | None:
    job = facts.job
    if job.state is not State.RUNNING:
        return None
    if facts.verdicts.worker_id is None:
        free = f"UPDATE jobqueue_jobs SET state = 'available' WHERE id = {job.id}"  # noqa: S608 - advice.
        said = "in no worker's hands: plain SQL has set it to running"
        return _because(facts, "worker_lost", said, f"let it run by SQL: {free}")
    worker = job.worker or "a worker"
    time = span(facts.since(job.started_at))
    if facts.holder is None or not facts.holder.is_alive:
        silent = "gone"
        if facts.holder is not None:
            silent = f"silent for {span(facts.since(facts.holder.heartbeat_at))}"
        return _because(
            facts,
            "worker_lost",
            f"claimed {time} ago by {worker}, which is {silent}",
            "another live worker makes it available again; start one if there is none",
            worker,
        )
    progress_at = facts.verdicts.progress_at
    said = ""
    if progress_at is not None and job.started_at is not None and progress_at > job.started_at:
        said = f", last progress {span(facts.since(progress_at))} ago"
    or_else = f"or stop it: jobqueue cancel {job.id}"
    if job.cancel_requested_at is not None:
        said += f", asked to stop {span(facts.since(job.cancel_requested_at))} ago"
        or_else = "a thread that does not call check() ends only with its worker"
    said = f"running on {worker} for {time}{said}"
    return _because(facts, "running", said, f"wait: jobqueue wait {job.id}; {or_else}", worker)


def _expired(facts: Facts) -> Explanation | None:
    if not facts.verdicts.has_expired:
        return None
    sentence = f"expired {span(facts.since(facts.verdicts.expires_at))} ago, before it began"
    if not facts.live_workers:
        alone = _no_live_worker(facts, f"{sentence}, and no worker is alive to cancel it")
        return replace(alone, code="expired")
    return _because(facts, "expired", sentence, "nothing: a worker cancels it in a second")


def _not_due(facts: Facts) -> Explanation | None:
    job = facts.job
    if job.state is not State.SCHEDULED:
        return None
    if job.reason and (unknown := _unknown_task(facts)) is not None:
        return unknown  # Each worker that claims it puts it off.
    wait = -facts.since(job.run_at)
    if wait > 0:
        after = _in_brackets(job.reason)
        if not job.reason and job.error is not None:
            after = f" (next attempt, after {job.error.type})"
        advice = f"wait, or run it now: jobqueue retry {job.id}"
        return _because(facts, "not_due", f"due in {span(wait)}{after}", advice)
    if (holder := facts.key_holder) is not None:
        sentence = f"waits for the end of job {holder.id}, which holds its key {holder.unique_key}"
        look = f"wait, or look at that one: jobqueue why {holder.id}"
        key: str = holder.unique_key
        return _because(facts, "awaits_key", sentence, look, key, jobs=(holder.id,))
    if not facts.live_workers:
        return _no_live_worker(facts, f"due {span(-wait)} ago, but no worker is alive")
    return _because(facts, "not_due", "due now", "nothing: a worker makes it available in a second")


# What is available: what holds it back


def _queue_paused(facts: Facts) -> Explanation | None:
    paused_at = facts.switches.paused_at
    if paused_at is None:
        return None
    pause = ("queue", facts.job.queue, paused_at, facts.paused_by())
    return _paused(facts, "queue_paused", pause, "queues resume")


def _task_or_tag_paused(facts: Facts) -> Explanation | None:
    if not facts.pauses:
        return None
    (kind, *_) = pause = facts.pauses[0]
    code: WhyCode = "task_paused" if kind == PauseKind.TASK else "tag_paused"
    return _paused(facts, code, pause, f"resume --{kind}")


def _paused(
    facts: Facts, code: WhyCode, pause: tuple[str, str, datetime, str | None], resume: str
) -> Explanation:
    kind, name, since, actor = pause
    form = "%H:%M" if since.date() == facts.present.date() else "%Y-%m-%d %H:%M"
    by = f" by {actor}" if actor else ""
    sentence = f"{kind} {name} paused since {since:{form}} UTC{by}"
    return _because(facts, code, sentence, f"resume it: jobqueue {resume} {quote(name)}", name)


def _no_worker(facts: Facts) -> Explanation | None:
    if facts.serving:
        return None
    if facts.draining:
        sentence = f"only workers that are draining serve queue {facts.job.queue}"
        return _no_live_worker(facts, sentence)
    others = counted(len(facts.live_workers), "live worker")
    also = f" ({others} for other queues)" if facts.live_workers else ""
    return _no_live_worker(facts, f"no live worker serves queue {facts.job.queue}{also}")


def _no_live_worker(facts: Facts, sentence: str) -> Explanation:
    queue = facts.job.queue
    advice = f"start one: {WORKER} --queues {quote(queue)}"
    return _because(facts, "no_worker", sentence, advice, queue)


def _unknown_task(facts: Facts) -> Explanation | None:
    if facts.is_known or not facts.serving:
        return None
    task, count = facts.job.task, len(facts.serving)
    return _because(
        facts,
        "unknown_task",
        f"no live worker knows the task {task} ({count:,} {'does' if count == 1 else 'do'} not)",
        "start a worker whose app has this task, with --app",
        task,
    )


def _queue_full(facts: Facts) -> Explanation | None:
    limit = facts.switches.max_running
    if limit is None or facts.queue_lane.running < limit:
        return None
    queue = facts.job.queue
    more = f"raise the limit: jobqueue queues limit {quote(queue)} N"
    if limit <= 0:  # The end of what still runs makes no room.
        return _because(facts, "queue_full", f"queue {queue} has the limit 0", more, queue)
    holding = facts.running_in_queue()
    full = f"queue {queue} full: {facts.queue_lane.running:,} of {limit:,}{_held_by(holding)}"
    advice = f"wait until one of them ends, or {more}"
    return _because(facts, "queue_full", full, advice, queue, jobs=holding)


def _rate(facts: Facts) -> Explanation | None:
    if not facts.verdicts.queue_limited or facts.queue_lane.room():
        return None
    queue, more = facts.job.queue, _raise_the_rate(facts)
    if facts.switches.rate_count == 0:
        return _because(facts, "rate", f"rate of queue {queue}: 0", more, queue)
    said = f"rate of queue {queue}: next start in {span(facts.queue_lane.wait() or 0.0)}"
    if (ahead := _ahead(facts)) is not None:
        said += f"; this job is {ahead}"
    return _because(facts, "rate", said, f"wait, or {more}", queue)


def _raise_the_rate(facts: Facts) -> str:
    return f"raise the rate: jobqueue queues rate {quote(facts.job.queue)} N/minute"


def _in_order(facts: Facts) -> Explanation | None:
    if facts.verdicts.is_plain:
        return None
    if facts.places.next_id is None and (ahead := facts.paused_ahead()) is not None:
        return _behind_in_order(facts, (ahead,), "which is paused")
    if facts.is_admitted():
        return None
    next_id, running = facts.places.next_id, facts.places.running
    limit, waiting = facts.verdicts.lane_limit or 0, facts.places.places - running
    if next_id is not None and next_id != facts.job.id:
        first: tuple[int, ...] = (next_id,)
        awaits = "which is due again and goes first"
    elif next_id is None and limit and (running < limit or waiting >= limit):
        first = facts.begun_of_key(State.SCHEDULED)
        awaits = f"which {'awaits its' if len(first) == 1 else 'await their'} next attempt"
    else:
        return None
    return _behind_in_order(facts, first, awaits) if first else None


def _behind_in_order(facts: Facts, first: tuple[int, ...], why: str) -> Explanation:
    return _because(
        facts,
        "in_order",
        f"in order: behind job {_and(first)} of its key, {why}",
        f"wait, or look at that one: jobqueue why {first[0]}",
        str(facts.job.lane),
        jobs=first,
    )


def _lane_full(facts: Facts) -> Explanation | None:
    if facts.verdicts.is_plain or facts.is_admitted():
        return None
    lane, limit, running = str(facts.job.lane), facts.verdicts.lane_limit, facts.places.running
    if (limit or 0) <= 0:
        return _because(
            facts,
            "lane_full",
            f"lane {lane} has the limit 0",
            "enqueue it with a greater limit",
            lane,
        )
    holding = facts.begun_of_key(State.RUNNING)
    return _because(
        facts,
        "lane_full",
        f"lane {lane} full: {running:,} of {limit:,}{_held_by(holding)}",
        "wait until one of them ends",
        lane,
        jobs=holding,
    )


def _behind(facts: Facts) -> Explanation | None:
    if (ahead := _ahead(facts)) is None:
        return None
    is_by_rate = facts.estimate is not None and facts.estimate.rate is not None
    advice = f"wait, or {_raise_the_rate(facts) if is_by_rate else 'start more workers'}"
    return _because(facts, "behind", ahead, advice, facts.job.queue)


def _ahead(facts: Facts) -> str | None:
    """Return behind what the job is, and for how long; None if it is the next."""
    before, keys = facts.jobs_before, facts.keys_before()
    if not any(before) and not keys:
        return None
    parts = []
    if any(before):
        of_key = "" if facts.verdicts.is_plain or facts.verdicts.queue_limited else " of its key"
        parts.append(_before_it(before, of_key))
    if keys:
        parts.append(_at_most_counted(keys, "other key"))
    said = f"behind {' and '.join(parts)}"
    if (estimate := facts.estimate) is None:
        return said
    # The jobs of other keys in front take time too, and nobody has counted them.
    is_least = before.jobs > COUNTED_MAX or before.may_be_more or keys
    about = "more than" if is_least else "about"
    at = "the last hour's pace" if estimate.rate is None else f"the queue's rate of {estimate.rate}"
    return f"{said}, {about} {span(estimate.seconds)} at {at}"


def _before_it(before: Before, of_key: str) -> str:
    if before.jobs:
        least = "at least " if before.may_be_more and before.jobs <= COUNTED_MAX else ""
        return f"{least}{_at_most_counted(before.jobs, 'job')}{of_key}"
    count = f"{LOOKED_AT_MAX:,}"
    return f"more than {count} jobs{of_key}, of which the first {count} are held back"


def _claimable(facts: Facts) -> Explanation | None:
    slots = sum(row.concurrency for row in facts.serving)
    running = sum(row.running for row in facts.serving)
    workers = counted(len(facts.serving), "live worker")
    if running >= slots:
        busy = f"{workers} of its queue: {running:,} of {slots:,} slots busy"
        return _because(
            facts,
            "claimable",
            f"claimable, the next of its queue, as soon as a slot is free ({busy})",
            "wait, or start more workers",
            facts.job.queue,
        )
    return _because(
        facts,
        "claimable",
        f"claimable now, the next of its queue ({workers})",
        "nothing: a worker takes it at its next look",
        facts.job.queue,
    )


_Reason = Callable[[Facts], Explanation | None]

NOT_AVAILABLE: tuple[_Reason, ...] = (_ended, _running, _expired, _not_due)
HELD_BACK: tuple[_Reason, ...] = (
    _expired,
    _queue_paused,
    _task_or_tag_paused,
    _no_worker,
    _unknown_task,
    _queue_full,
    _rate,
    _in_order,
    _lane_full,
    _behind,
    _claimable,
)


# Words


def _at_most_counted(count: int, noun: str) -> str:
    return f"more than {COUNTED_MAX:,} {noun}s" if count > COUNTED_MAX else counted(count, noun)


def _held_by(ids: tuple[int, ...]) -> str:
    return f", held by {_and(ids)}" if ids else ""


def _and(ids: tuple[int, ...]) -> str:
    if len(ids) == 2:  # noqa: PLR2004
        return f"{ids[0]} and {ids[1]}"
    return listed(ids)


def _in_brackets(reason: str | None) -> str:
    return f" ({reason})" if reason else ""
