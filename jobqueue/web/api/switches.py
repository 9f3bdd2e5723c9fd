"""Operations on queues, tasks and tags: what `queues`, `pause`, `resume` and `undo` change."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from jobqueue import options, text_parsing
from jobqueue.bulk_verbs import DryRun
from jobqueue.errors import invalid
from jobqueue.known_names import known_name
from jobqueue.queue import JobQueue
from jobqueue.queue_switches import Rate, check_limit
from jobqueue.records import JobFilter
from jobqueue.redaction import ShownJobs
from jobqueue.states import WAITING
from jobqueue.store.names import Names
from jobqueue.store.pauses import Pauses
from jobqueue.store.queue_control import QueueControl
from jobqueue.store.schema import PauseKind
from jobqueue.store.undo import Undo
from jobqueue.web.api.operation import Asked, Operation, Operations, Work, post
from jobqueue.web.api.schemas import FLAG, TEXT, WHOLE, Schema, a_body, an_object, or_null, ref
from jobqueue.web.requests import object_of, required
from jobqueue.web.rights import Rights

STOPPED = {
    PauseKind.QUEUE: "no more of its jobs start",
    PauseKind.TASK: "no more jobs of this task start",
    PauseKind.TAG: "no more jobs with this tag start",
}


def _switch(verb: str, summary: str, **body: Schema) -> Callable[[Work], Work]:
    return post(
        f"/api/queues/{{name}}/{verb}",
        f"what was changed; the body is {summary}",
        ref("Changed"),
        body=a_body(verb, **body),
        refusals=(404,),
        verb=verb,
    )


class SwitchOperations(Operations):
    """What can be changed of the queues, tasks and tags of one queue, and taken back."""

    def __init__(self, queue: JobQueue, names: Callable[[], Names]) -> None:
        self._jobs = ShownJobs(queue.store)
        self._store = queue.store
        self._undo = Undo(queue.store).undo
        self._wake_workers = queue.wake_workers
        self._names = names

    def operations(self) -> Iterator[Operation]:
        """Yield them."""
        yield from self._pauses_and_resumes(PauseKind.QUEUE)
        yield from super().operations()
        yield from self._pauses_and_resumes(PauseKind.TASK)
        yield from self._pauses_and_resumes(PauseKind.TAG)

    def _pauses_and_resumes(self, kind: PauseKind) -> Iterator[Operation]:
        for verb in ("pause", "resume"):
            yield Operation(
                f"{verb}_{kind}",
                "POST",
                f"/api/{kind}s/{{name}}/{verb}",
                "what was changed" + (f": {STOPPED[kind]}" if verb == "pause" else ""),
                partial(self._pause_or_resume, kind, verb),
                ref("Changed"),
                refusals=(404,),
                verb=verb,
            )

    def _pause_or_resume(self, kind: PauseKind, verb: str, asked: Asked) -> dict[str, int]:
        name = self._named(asked, kind)
        return self._changed(getattr(Pauses(self._store, asked.by), verb)(kind, name))

    @_switch("limit", '`{"limit": 4}`, null takes it back', limit=or_null(WHOLE))
    def _limit_queue(self, asked: Asked) -> dict[str, int]:
        queue = self._named(asked, "queue")
        most = required(object_of(asked.body, "limit"), "limit")
        limit = None if most is None else check_limit(most)
        return self._changed(QueueControl(self._store, asked.by).limit(queue, limit))

    @_switch(
        "rate",
        '`{"rate": "100/minute", "burst": 10}`, null takes it back',
        rate=or_null(TEXT),
        burst=or_null(WHOLE),
    )
    def _rate_queue(self, asked: Asked) -> dict[str, int]:
        queue = self._named(asked, "queue")
        given = object_of(asked.body, "rate", "burst")
        rate, burst = required(given, "rate"), given.get("burst")
        if rate is None and burst is not None:
            raise invalid("burst", "there is no rate to run ahead of")
        new = None if rate is None else Rate.of(rate, burst)
        return self._changed(QueueControl(self._store, asked.by).rate(queue, new))

    @_switch("fair", '`{"fair": true}`', fair=FLAG)
    def _fair_queue(self, asked: Asked) -> dict[str, int]:
        queue = self._named(asked, "queue")
        fair = options.flag(required(object_of(asked.body, "fair"), "fair"), "fair")
        return self._changed(QueueControl(self._store, asked.by).fair(queue, fair=fair))

    def _changed(self, is_new: bool) -> dict[str, int]:  # noqa: FBT001 - what a verb returns.
        if is_new:
            self._wake_workers()
        return {"changed": int(is_new)}

    @post(
        "/api/queues/{name}/purge",
        'how many waiting jobs were deleted; `{"dry_run": true}` answers how many would be, and '
        "the newest ten, and deletes none",
        {"anyOf": [an_object(deleted=WHOLE), ref("DryRun")]},
        body=a_body(dry_run=FLAG),
        needs_body=False,
        refusals=(404,),
        verb="purge",
        is_bulk=True,
    )
    def _purge_queue(self, asked: Asked) -> dict[str, Any]:
        queue = self._named(asked, "queue")
        given = object_of(asked.body, "dry_run")
        if options.flag(given.get("dry_run", False), "dry_run"):
            return DryRun.of(self._jobs, [JobFilter(queue=queue)], WAITING).to_json()
        return {"deleted": QueueControl(self._store, asked.by).purge(queue)}

    @post(
        "/api/log/{id}/undo",
        "what was changed: an action of the log is taken back; 409 if it cannot be, or what it set "
        "was changed since",
        an_object(changed=WHOLE, undone=TEXT),
        refusals=(404, 409),
        verb="undo",
    )
    def _undo_action(self, asked: Asked) -> dict[str, Any]:
        """Take an action back; who may undo has to have the right to the verb that does it."""
        rights: Rights = asked.request.scope["jobqueue.rights"]
        said = self._undo(text_parsing.action_id(asked.given["id"]), asked.by, rights.require)
        return self._changed(is_new=True) | {"undone": said}

    def _named(self, asked: Asked, kind: str) -> str:
        """Return the name that a request is about. Raises JobNotFound if it is not known."""
        return known_name(kind, asked.given["name"], self._names)
