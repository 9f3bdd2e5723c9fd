"""Decides where the handler of a claim runs: in a thread, on the event loop, in a child process."""

from enum import Enum

from jobqueue.records import Claim
from jobqueue.tasks import Registry
from jobqueue.worker.isolate.pool import ProcessPool


class Runner(Enum):
    """What runs a handler."""

    THREAD = "thread"
    EVENT_LOOP = "event loop"
    CHILD_PROCESS = "child process"


class Router:
    """Chooses the runner of each claim. May be used from any thread."""

    def __init__(self, registry: Registry, process_pool: ProcessPool | None) -> None:
        self._registry = registry
        self._process_pool = process_pool

    def runner_for(self, claim: Claim) -> Runner:
        """Where the handler of a claim runs; a thread if its task is not known, or not any more.

        In a child process if its task says so, or if it was in a crash and a child can import it.
        """
        task = self._registry.find(claim.task)  # Asked each time: tasks may be added at any time.
        if task is None:
            return Runner.THREAD
        if self._process_pool is not None and (
            task.settings.isolation == "process"
            or (claim.crashes and self._process_pool.can_import(claim))
        ):
            return Runner.CHILD_PROCESS
        return Runner.EVENT_LOOP if task.is_async else Runner.THREAD
