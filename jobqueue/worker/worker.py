"""The worker: builds the services, starts them in order, and stops them in reverse."""

import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Self

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from jobqueue.events import EventStream
from jobqueue.loggers import get_logger
from jobqueue.records import Claim, counted
from jobqueue.store.claims import Claims
from jobqueue.store.completion import Completion
from jobqueue.store.database import Store
from jobqueue.store.history import History
from jobqueue.store.leases import Leases
from jobqueue.store.maintenance import Maintenance
from jobqueue.store.notify.notifier import Bell, Heard
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.tasks import Registry
from jobqueue.worker import process_identity
from jobqueue.worker.assembly import observers, upkeep_services
from jobqueue.worker.claim.claimer import Claimer
from jobqueue.worker.claim.cursors import Frontier
from jobqueue.worker.claim.planner import Intake
from jobqueue.worker.complete.completer import Completer
from jobqueue.worker.complete.event_dispatcher import Announcer
from jobqueue.worker.complete.outcome_writer import Exit
from jobqueue.worker.connections import Connections
from jobqueue.worker.execute.autoscale import Scaler
from jobqueue.worker.execute.event_loop import Loop, LoopWatch
from jobqueue.worker.execute.exec_task import WithExec
from jobqueue.worker.execute.executor import Executor, Middleware
from jobqueue.worker.execute.thread_pool import Slots
from jobqueue.worker.execute.timeouts import Overseer
from jobqueue.worker.handler.outcomes import Endings
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.isolate.importing import Import
from jobqueue.worker.isolate.pool import Isolation
from jobqueue.worker.log_context import about, name_worker, say
from jobqueue.worker.observe.health import Vitals
from jobqueue.worker.observe.metrics import Metrics
from jobqueue.worker.service import Service
from jobqueue.worker.settings import WorkerSettings
from jobqueue.worker.shared_poll import Lookout
from jobqueue.worker.signal_safe_event import Flag
from jobqueue.worker.single_writer import Turn
from jobqueue.worker.stop_conditions import Lifespan
from jobqueue.worker.upkeep.heartbeat import Heartbeat, registration
from jobqueue.worker.upkeep.listener import Ear

log = get_logger("jobqueue.worker")

CHILDREN_END = 1.0
"""Seconds for child processes to end after they were told to, before they are killed."""
LAST_WORDS = 5.0
"""Seconds for which the last outcomes are offered to a database that does not answer."""


class Worker:
    """Runs jobs in this process until stopped. A context manager, or `start()` and `stop()`."""

    def __init__(
        self,
        url: str | URL,
        registry: Registry,
        settings: WorkerSettings,
        *,
        events: EventStream | None = None,
        middleware: Sequence[Middleware] = (),
        handlers: Store | None = None,  # The one that they use; None: one is made for them.
        declared: Callable[[Store], None] | None = None,  # Writes what the app declares.
    ) -> None:
        self.settings = settings
        if settings.allow_exec:
            registry = WithExec(registry)
        self._registry = registry
        self._middleware = middleware
        self._declared = declared
        self._events = events or EventStream()
        self._inflight = inflight = InFlight(settings.concurrency, settings.lease)
        self._life = life = Lifespan()
        self._ended = life.ended
        self._connections = Connections(
            url, handlers, at_work=lambda: bool(inflight.held), gives_up=life.is_over
        )
        self._store, self._pulse = self._connections.line, self._connections.pulse
        self._maintenance = Maintenance(self._connections.upkeep)
        self._isolation = Isolation(self._store.url, registry, max_snoozes=settings.max_snoozes)
        self._metrics = Metrics(self._inflight)
        self._aborted = Flag()
        self._stopping = threading.Lock()
        self._in_order: bool | None = None
        self._services: list[Service] = []
        self._claimer: Service
        self._completer: Service
        self._slots: Slots
        self._loop: Loop
        self.name = ""

    def start(self, registered: Callable[[], None] | None = None) -> None:
        """Take a lease and begin. Raises what the database raises if it cannot be reached.

        `registered` is called in between, before any job can begin. A server that has no connection
        free is waited for; if the worker is stopped meanwhile, nothing begins.
        """
        copy_context().run(self._start, registered)  # Its name is of its own threads alone.

    def _start(self, registered: Callable[[], None] | None) -> None:
        try:
            Import.refuse("a worker starts")
            self._isolation.check()
            self._store.require_schema()
            if self._declared is not None:
                self._declared(self._store)
            self._build()
            self._heartbeat.register()
        except BaseException as error:
            self._connections.close()
            if isinstance(error, DBAPIError) and self._life.is_over():
                log.info("stopped before it had a connection")
                self._in_order = True  # Nothing has begun, so that there is nothing to stop.
                return
            raise
        self._life.is_at_work = True
        if registered is not None:
            registered()
        try:
            for service in self._services:
                service.start()
        except BaseException:  # The system has no thread to give: those that run claim jobs by now.
            self.stop(0)
            raise
        slots = self.settings.concurrency
        self._slots.resize(slots)
        say("began", "worker %s began, slots: %d", self.name, slots, slots=slots)

    def _build(self) -> None:
        settings, backend = self.settings, self._store.backend
        me = process_identity.this_process()
        self.name = settings.name or f"{me.host}-{me.pid}"
        name_worker(self.name)
        upkeep = self._connections.upkeep
        self._lookout = Lookout(upkeep, Leases(upkeep), self._inflight, me)
        self._bell = Bell(backend.ringer(self._store.engine))
        listener = backend.listener(self._store.url, self._connections.patience)
        announcer = Announcer(self._events)
        self._heartbeat = Heartbeat(
            Leases(self._pulse),
            Completion(self._pulse),
            self._inflight,
            registration(settings, self.name, self._registry, me, listener.address),
            registered=self._hurry,
            exhausted=self._life.exhausted,
        )
        self._services = [
            self._heartbeat,
            announcer,
            *self._build_line(announcer),
            Ear(listener, self._hurry, self._lookout.again, self._intake),
            *self._build_slots(),
            *self._build_keepers(me, announcer),
        ]

    def _build_line(self, announcer: Announcer) -> list[Service]:
        settings, inflight = self.settings, self._inflight
        claims = Claims(self._store)
        self._intake = Intake(
            self._store,
            Frontier(claims, settings.queues),
            inflight,
            self._lookout,
            poll=settings.poll,
            max_jobs=settings.max_jobs,
        )
        exit_ = Exit(
            self._store,
            Completion(self._store),
            inflight,
            self.name,
            announce=announcer.announce,
            events=self._events,
            metrics=self._metrics,
        )
        if self._store.backend.one_writer:
            self._claimer = self._completer = Turn(self._store, self._intake, exit_)
            return [self._completer]
        self._claimer = Claimer(self._store, self._intake, self._connections.claiming)
        self._completer = Completer(self._store, exit_, self._claimer.wake)
        return [self._completer, self._claimer]

    def _build_slots(self) -> list[Service]:
        """What runs handlers, and what watches over it."""
        settings, inflight = self.settings, self._inflight
        endings = Endings(self._registry, settings.max_snoozes, settings.max_crashes)
        executor = Executor(
            inflight,
            self._registry,
            Claims(self._connections.handlers),
            UserTransactions(self._connections.handlers),
            middleware=tuple(self._middleware),
            endings=endings,
            finished=self._finished,
            isolation=self._isolation,
        )
        self._slots = Slots(executor, inflight)
        self._loop = Loop(
            inflight, executor, endings, self._finished, concurrency=settings.async_concurrency
        )
        inflight.divert = self._divert
        asynchronous = sum(task.runs_on_loop for task in self._registry.values())
        if asynchronous:
            inflight.async_concurrency = settings.async_concurrency
            inflight.async_share = asynchronous / len(self._registry)
        services: list[Service] = [
            LoopWatch(self._loop),
            Overseer(
                inflight,
                endings,
                self._slots,
                self._loop,
                finished=self._finished,
                exhausted=self._life.exhausted,
                isolation=self._isolation,
            ),
        ]
        if settings.scaling is not None:
            scaler = Scaler(
                inflight, self._slots, settings.scaling, waiting=self._waiting, changed=self._hurry
            )
            services.append(scaler)
        return services

    def _waiting(self, limit: int) -> int:
        """How many jobs this worker could claim, counted up to `limit`."""
        queues = self.settings.queues
        return self._maintenance.available(None if queues is None else tuple(queues), limit)

    def _divert(self, claim: Claim) -> bool:
        task = self._registry.find(claim.task)  # Not a set: tasks may be added at any time.
        if task is None or not task.runs_on_loop:
            return False
        if claim.crashes and self._isolation.takes(claim):
            return False
        self._inflight.async_concurrency = self.settings.async_concurrency
        self._loop.submit(claim)
        return True

    def _build_keepers(self, me: process_identity.Identity, announcer: Announcer) -> list[Service]:
        settings, inflight = self.settings, self._inflight
        upkeep = self._connections.upkeep
        keepers = upkeep_services(
            upkeep,
            self._lookout,
            inflight,
            me,
            settings=settings,
            ring=self._ring,
            announcer=announcer,
            events=self._events,
        )
        history, metrics = History(upkeep), self._metrics
        keepers += observers(settings, self.name, inflight, metrics, history, waiting=self._waiting)
        return keepers + self._life.watchers(
            settings, self._maintenance, inflight, self._intake, list(self._registry)
        )

    def _hurry(self, heard: Heard = Heard.CHANGE) -> None:
        """There may be something to do."""
        self._intake.hurry(rung=heard is Heard.RING)
        self._claimer.wake()

    def _ring(self) -> None:
        """There is something to do, here or elsewhere."""
        self._hurry(Heard.RING)
        self._bell.ring()

    def _finished(self) -> None:
        """An executor has put an outcome down."""
        self._completer.wake()
        if self._inflight.inbox.qsize() <= self._intake.low:
            self._claimer.wake()

    @property
    def failure(self) -> str | None:
        """Why the worker stopped by itself before its time, if it did."""
        return self._life.failure

    @property
    def outgrown(self) -> bool:
        """It stopped because of `max_memory`, in order; another one is to take its place."""
        return self._life.is_outgrown

    @property
    def vitals(self) -> Vitals:
        """How it fares; once it has begun."""
        return Vitals(self.name, self._inflight, self._services, self._life)

    @property
    def processed(self) -> int:
        """Attempts that ended here and were recorded."""
        return self._inflight.processed

    @property
    def concurrency(self) -> int:
        """Its slots at this moment."""
        return self._inflight.concurrency

    @property
    def running(self) -> int:
        """Handlers that run now."""
        return len(self._inflight.running)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the worker has reason to end by itself (`drain`, `max_jobs`) or is stopped."""
        return self._ended.wait(timeout)

    def request_stop(self) -> None:
        """Make `wait()` return; may be called from a signal handler."""
        self._ended.set()

    def abort(self) -> None:
        """Do not wait for running handlers any longer; may be called from a signal handler."""
        self._aborted.set()

    def stop(self, timeout: float | None = None) -> bool:
        """Stop: claim nothing more, give back what has not begun, let handlers end.

        Waits `timeout` seconds (default: the setting) for them; then their jobs go back uncharged.
        True if every handler ended in time and every outcome was recorded.
        """
        with self._stopping:
            if self._in_order is None:
                limit = self.settings.shutdown_timeout if timeout is None else timeout
                self._in_order = copy_context().run(self._stop, limit)
            return self._in_order

    def _stop(self, limit: float) -> bool:
        name_worker(self.name or None)
        self._ended.set()
        self._intake.closed = True
        given_back = self._inflight.close()
        self._slots.close()
        self._loop.give_back()
        self._completer.wake()
        if (running := len(self._inflight.running)) or given_back:
            back = counted(given_back, "job")
            log.info("stopping: %s given back, %d still running", back, running)
        in_order = self._await_handlers(limit)
        if not in_order:
            for claim in self._inflight.interrupt():
                line = "job %d (%s) is interrupted and goes back"
                log.warning(line, claim.id, claim.task, extra=about(claim, "interrupted"))
        in_order &= self._await_outcomes()
        self._isolation.close(CHILDREN_END / 4 if self._aborted.is_set() else CHILDREN_END)
        self._loop.close()
        for service in reversed(self._services):
            service.stop()
        self._life.is_at_work = False  # Now, so that who waits for a connection knows why.
        until = time.monotonic() + LAST_WORDS
        for service in reversed(self._services):
            ended = service.join(max(0.0, until - time.monotonic()))
            in_order &= ended or isinstance(service, Announcer)  # A slow one holds up no job.
        self._bell.close()
        self._connections.leave(None if self._inflight.held else self._inflight.holder)
        count = self._inflight.processed
        say("ended", "worker %s ended: %s", self.name, counted(count, "job"), processed=count)
        return in_order

    def _await_handlers(self, limit: float) -> bool:
        until = time.monotonic() + limit
        while self._inflight.open_async:
            if time.monotonic() >= until or self._aborted.wait(0.02):
                return False
        return self._slots.join(until, self._aborted)

    def _await_outcomes(self) -> bool:
        """Wait until the database has answered about every claim, or seems not to be there."""
        until = time.monotonic() + (1.0 if self._aborted.is_set() else LAST_WORDS)
        while self._unsettled() and time.monotonic() < until:
            self._completer.wake()
            self._claimer.wake()
            self._completer.join(0.005)
        return not self._unsettled()

    def _unsettled(self) -> bool:
        """True while a claim is on its way in, or an outcome on its way out."""
        inflight = self._inflight
        return self._intake.unanswered or bool(inflight.held) or inflight.outbox.qsize() > 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
