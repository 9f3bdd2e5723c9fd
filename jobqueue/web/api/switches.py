"""Operations on queues, tasks and tags: what `queues`, `pause`, `resume` and `undo` change."""

from collections.abc import Callable, Iterator
from typing import Any

from jobqueue import options, wire
from jobqueue.bulk_verbs import DryRun
from jobqueue.errors import InvalidOption
from jobqueue.known_names import known_name
from jobqueue.queue import JobQueue
from jobqueue.queue_switches import Rate, check_limit
from jobqueue.records import JobFilter
from jobqueue.redaction import ShownJobs
from jobqueue.states import WAITING
from jobqueue.store.audit import Action
from jobqueue.store.names import Names
from jobqueue.store.pauses import Pauses
from jobqueue.store.queue_control import QueueControl
from jobqueue.store.schema import PauseKind
from jobqueue.store.undo import Undo
from jobqueue.web.api.operation import Asked, Operation
from jobqueue.web.api.schemas import FLAG, TEXT, WHOLE, Schema, a_body, an_object, or_null, ref
from jobqueue.web.requests import object_of, required
from jobqueue.web.rights import Rights

Change = Callable[[str, Asked], bool]
"""Changes a queue; True if something has changed."""
SWITCHES: dict[str, tuple[str, Schema]] = {
    "limit": (
        'what was changed; the body is `{"limit": 4}`, null takes it back',
        a_body("limit", limit=or_null(WHOLE)),
    ),
    "rate": (
        'what was changed; the body is `{"rate": "100/minute", "burst": 10}`, null takes it back',
        a_body("rate", rate=or_null(TEXT), burst=or_null(WHOLE)),
    ),
    "fair": (
        'what was changed; the body is `{"fair": true}`',
        a_body("fair", fair=FLAG),
    ),
}
STOPPED = {
    PauseKind.QUEUE: "no more of its jobs start",
    PauseKind.TASK: "no more jobs of this task start",
    PauseKind.TAG: "no more jobs with this tag start",
}
PURGE = (
    'how many waiting jobs were deleted; `{"dry_run": true}` answers how many would be, and the '
    "newest ten, and deletes none"
)
UNDO = (
    "what was changed: an action of the log is taken back; 409 if it cannot be, or what it set was "
    "changed since"
)


class SwitchOperations:
    """What can be changed of the queues, tasks and tags of one queue, and taken back."""

    def __init__(self, queue: JobQueue, names: Callable[[], Names]) -> None:
        self._jobs = ShownJobs(queue.store)
        self._control = QueueControl(queue.store)
        self._pauses = Pauses(queue.store)
        self._take_back = Undo(queue.store).undo
        self._wake_workers = queue.wake_workers
        self._names = names

    def operations(self) -> Iterator[Operation]:
        """Yield them."""
        yield from self._pauses_and_resumes(PauseKind.QUEUE)
        changes: dict[str, Change] = {
            "limit": self._limit,
            "rate": self._rate,
            "fair": self._fair,
        }
        for verb, (summary, body) in SWITCHES.items():
            yield Operation(
                f"{verb}_queue",
                "POST",
                f"/api/queues/{{name}}/{verb}",
                summary,
                self._changes(changes[verb]),
                ref("Changed"),
                body=body,
                refusals=(404,),
                verb=verb,
            )
        yield Operation(
            "purge_queue",
            "POST",
            "/api/queues/{name}/purge",
            PURGE,
            self._purge,
            {"anyOf": [an_object(deleted=WHOLE), ref("DryRun")]},
            body=a_body(dry_run=FLAG),
            needs_body=False,
            refusals=(404,),
            verb="purge",
            is_bulk=True,
        )
        yield Operation(
            "undo_action",
            "POST",
            "/api/log/{id}/undo",
            UNDO,
            self._undo,
            an_object(changed=WHOLE, undone=TEXT),
            refusals=(404, 409),
            verb="undo",
        )
        yield from self._pauses_and_resumes(PauseKind.TASK)
        yield from self._pauses_and_resumes(PauseKind.TAG)

    def _pauses_and_resumes(self, kind: PauseKind) -> Iterator[Operation]:
        for verb in ("pause", "resume"):
            yield Operation(
                f"{verb}_{kind}",
                "POST",
                f"/api/{kind}s/{{name}}/{verb}",
                "what was changed" + (f": {STOPPED[kind]}" if verb == "pause" else ""),
                self._pausing(kind, verb),
                ref("Changed"),
                refusals=(404,),
                verb=verb,
            )

    def _undo(self, asked: Asked) -> dict[str, Any]:
        """Take an action back; who may undo has to have the right to the verb that does it."""
        rights: Rights = asked.request.scope["jobqueue.rights"]
        said = self._take_back(wire.action_id(asked.given["id"]), asked.by, rights.require)
        self._wake_workers()
        return {"changed": 1, "undone": said}

    def _pausing(self, kind: PauseKind, verb: str) -> Callable[[Asked], dict[str, int]]:
        """Return what pauses or resumes a queue, a task or a tag."""

        def work(asked: Asked) -> dict[str, int]:
            name = self._named(asked, kind)
            action = Action(asked.by, verb, {kind.value: name})
            changed = getattr(self._pauses, verb)(kind, name, action)
            self._wake_workers()
            return {"changed": int(changed)}

        return work

    def _changes(self, change: Change) -> Callable[[Asked], dict[str, int]]:
        """Return what changes a queue, and answers how many it has changed."""

        def work(asked: Asked) -> dict[str, int]:
            changed = change(self._named(asked, "queue"), asked)
            self._wake_workers()
            return {"changed": int(changed)}

        return work

    def _limit(self, queue: str, asked: Asked) -> bool:
        most = required(object_of(asked.body, "limit"), "limit")
        limit = None if most is None else check_limit(most)
        self._control.limit(queue, limit, _action(asked, "limit", queue, limit=limit))
        return True

    def _rate(self, queue: str, asked: Asked) -> bool:
        given = object_of(asked.body, "rate", "burst")
        rate, burst = required(given, "rate"), given.get("burst")
        if rate is None and burst is not None:
            raise InvalidOption("burst: there is no rate to run ahead of", field="burst")
        new = None if rate is None else Rate.of(rate, burst)
        self._control.rate(queue, new, _action(asked, "rate", queue, rate=new and str(new)))
        return True

    def _fair(self, queue: str, asked: Asked) -> bool:
        fair = options.flag(required(object_of(asked.body, "fair"), "fair"), "fair")
        self._control.fair(queue, _action(asked, "fair", queue, fair=fair), fair=fair)
        return True

    def _purge(self, asked: Asked) -> dict[str, Any]:
        """Delete the jobs of a queue that wait; `{"dry_run": true}`: only count them."""
        queue = self._named(asked, "queue")
        given = object_of(asked.body, "dry_run")
        if options.flag(given.get("dry_run", False), "dry_run"):
            return DryRun.of(self._jobs, [JobFilter(queue=queue)], WAITING).to_json()
        return {"deleted": self._control.purge(queue, _action(asked, "purge", queue))}

    def _named(self, asked: Asked, kind: str) -> str:
        """Return the name that a request is about. Raises JobNotFound if it is not known."""
        return known_name(kind, asked.given["name"], self._names)


def _action(asked: Asked, verb: str, queue: str, **more: Any) -> Action:
    return Action(asked.by, verb, {"queue": queue, **more})
