"""Decides which runner a claim goes to, and runs claims in threads to their outcomes."""

import threading
from collections.abc import Callable
from enum import Enum

from jobqueue.records import Claim, Unsuccessful
from jobqueue.states import State
from jobqueue.tasks import Registry
from jobqueue.worker.execute.admission import Admission, NotStarted
from jobqueue.worker.handler.context_variables import ProgramContext
from jobqueue.worker.handler.describe import describe
from jobqueue.worker.handler.run import HandlerRunner
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.isolate.pool import NO_PROCESS_DELAY, NoProcess, ProcessPool


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
        """Return what runs the handler of a claim; a thread if its task is unknown.

        A child process if the task requires it, or if the job was in a crash and its task can be
        imported there.
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


class Executor:
    """Runs claims one after another until it takes None from the inbox.

    Each runs in a copy of the context of the program that started the worker.
    """

    def __init__(
        self,
        inflight: InFlight,
        admission: Admission,
        router: Router,
        handlers: HandlerRunner,
        *,
        finished: Callable[[], None],
        process_pool: ProcessPool | None = None,
    ) -> None:
        self.program_context = ProgramContext()
        self.admission = admission
        self.router = router
        self.handlers = handlers
        self._inflight = inflight
        self._finished = finished
        self._process_pool = process_pool
        self.submit: Callable[[Claim], None] | None = None
        """Gives a claim to the event loop."""

    def dispatch_async(self, claim: Claim) -> bool:
        """Give a claim to the event loop if that is its runner; False: a thread takes it."""
        if self.submit is None or self.router.runner_for(claim) is not Runner.EVENT_LOOP:
            return False
        self.submit(claim)
        return True

    def loop(self) -> None:
        """Run claims from the inbox until it yields None, or the claim of this thread was ended."""
        inbox = self._inflight.inbox
        try:
            while (claim := inbox.get()) is not None and self.take(claim):
                pass
        finally:
            if self._process_pool is not None:
                self._process_pool.end_child()

    def take(self, claim: Claim) -> bool:
        """Run a claim that was handed out, if it may start; False as in `work`. Never raises."""
        inflight = self._inflight
        goes_on = True
        try:
            while not self.admission.may_start(claim):
                inflight.lease.wait(0.5)
            goes_on = self.program_context.copy().run(self.work, claim)
        except NotStarted as refusal:
            if refusal.outcome is not None:
                inflight.outbox.put(refusal.outcome)
        except BaseException as error:  # noqa: BLE001 - recorded with the outcome.
            # Such as a column that plain SQL has filled with something else.
            inflight.running.drop((claim.id, claim.fence))
            inflight.outbox.put(Unsuccessful(claim, "errored", State.FAILED, error=describe(error)))
        inflight.capacity.free_slot(claim)
        self._finished()
        return goes_on

    def work(self, claim: Claim) -> bool:
        """Run one claim and put its outcome into the outbox. Raises NotStarted.

        False: the claim was ended meanwhile, and another thread took the place of this one.
        """
        if self.router.runner_for(claim) is Runner.CHILD_PROCESS:
            return self._work_in_child(claim)
        context, args, kwargs = self.admission.prepare(claim)
        self._inflight.begin(context)
        outcome = self.handlers.run(context, args, kwargs)
        return self._inflight.end(context, outcome)

    def _work_in_child(self, claim: Claim) -> bool:
        inflight, process_pool = self._inflight, self._process_pool
        assert process_pool is not None, "the router knows it"
        admission = self.admission.for_child(claim)
        context = admission.context
        inflight.start(context)
        try:
            outcome = process_pool.run(context, admission)
        except NoProcess as error:
            inflight.withdraw(context, process_pool.release(claim, error))
            threading.Event().wait(NO_PROCESS_DELAY)  # The next claim would meet the same error.
            return True
        if admission.begun and outcome is not None:
            return inflight.end(context, outcome)
        inflight.withdraw(context, outcome)
        return True
