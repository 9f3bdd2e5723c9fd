"""The verbs of `top`: what a key would do, asked as a question, and done once that is answered."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from jobqueue import overview
from jobqueue.bulk_verbs import CANCEL, RETRY, RETRY_ALL, Verb, change_jobs, in_words
from jobqueue.cli.commands.top.views import Item
from jobqueue.error_groups import ErrorGroup
from jobqueue.records import JobFilter, counted
from jobqueue.redaction import ShownJobs
from jobqueue.states import State
from jobqueue.store.audit import operator
from jobqueue.store.job_pages import COUNTED_MAX, JobPages
from jobqueue.store.pauses import Pauses
from jobqueue.store.schema import PauseKind


class Ask(NamedTuple):
    """What a verb would do."""

    question: str
    act: Callable[[], str]
    """Does it, and returns in a sentence what was done. Raises JobQueueError."""


class Verbs:
    """Changes one database, for the user of this process."""

    def __init__(self, jobs: ShownJobs, wake: Callable[[], None]) -> None:
        self._jobs = jobs
        self._wake = wake

    def ask(self, key: str, item: Item) -> Ask | str:
        """Return what a key would do to an item now, or why it does nothing."""
        match key, item.kind:
            case "p", "queue":
                return self._switch(item)
            case "p", "pause":
                kind, name = PauseKind(item.it["kind"]), item.it["name"]
                return Ask(f"resume {kind} {name}", partial(self._set, "resume", kind, name))
            case "r", "error":
                return self._retry_group(item.it)
            case "r" | "c", "job":
                return self._one(RETRY if key == "r" else CANCEL, int(item.key))
            case _:
                raise ValueError(key)

    def _switch(self, item: Item) -> Ask:
        verb = "resume" if item.it["paused"] else "pause"
        least = "at least " if item.it["available_more"] or item.it["scheduled_more"] else ""
        waiting = least + counted(item.it["waiting"], "job")
        wait = "waits" if item.it["waiting"] == 1 else "wait"
        act = partial(self._set, verb, PauseKind.QUEUE, item.key)
        return Ask(f"{verb} queue {item.key}, where {waiting} {wait}", act)

    def _set(self, verb: str, kind: PauseKind, name: str) -> str:
        changed = getattr(Pauses(self._jobs.store, operator()), verb)(kind, name)
        if verb == "resume":
            self._wake()
        overview.forget_findings(self._jobs.store)
        return f"{kind.capitalize()} {name} {'is' if changed else 'was already'} {verb}d."

    def _retry_group(self, group: ErrorGroup) -> Ask | str:
        wanted = JobFilter(state=State.FAILED, error=group.signature)
        count = JobPages(self._jobs).count(wanted)
        if not count:
            return "no failed job has this error as its last one"
        many = counted(count, "job")
        if count > COUNTED_MAX:
            many = f"more than {counted(COUNTED_MAX, 'job')}"
        return self._asks(RETRY, wanted, f"retry {many} that failed with {group.signature}")

    def _one(self, verb: Verb, id_: int) -> Ask | str:
        job = self._jobs.get(id_)
        if job is None:
            return f"there is no job {id_} (any more)"
        question = f"{verb.name} job {id_} ({job.task}), which is {job.state}"
        if verb is RETRY and job.state is State.SUCCEEDED:
            verb, question = RETRY_ALL, f"job {id_} ({job.task}) has succeeded: run it again"
        if job.state not in verb.states:
            return f"job {id_} is {job.state}: it cannot be {verb.done}"
        return self._asks(verb, JobFilter(ids=(id_,)), question)

    def _asks(self, verb: Verb, wanted: JobFilter, question: str) -> Ask:
        def act() -> str:
            done = change_jobs(verb, self._jobs, wanted, operator(), self._wake)
            overview.forget_findings(self._jobs.store)
            return in_words(verb, done)

        return Ask(question, act)


def keys_of(item: Item | None) -> dict[str, str]:
    """Return the verbs for an item, by key."""
    if item is None:
        return {}
    if item.kind == "queue":
        return {"p": "resume" if item.it["paused"] else "pause"}
    if item.kind == "pause":
        return {"p": "resume"}
    return {"error": {"r": "retry"}, "job": {"r": "retry", "c": "cancel"}}.get(item.kind, {})
