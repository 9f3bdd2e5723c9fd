"""Builds a worker's parts and wires their wake-ups."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from sqlalchemy import URL

from jobqueue.enqueue_hooks import EnqueueHook
from jobqueue.events import EventStream
from jobqueue.records import ReapedJob
from jobqueue.store.claims import Claims
from jobqueue.store.completion import Completion
from jobqueue.store.database import Store
from jobqueue.store.history import History
from jobqueue.store.leases import Leases
from jobqueue.store.maintenance import Maintenance
from jobqueue.store.notify.notifier import Notifier, Subscription, Wakeup
from jobqueue.store.paused import PausedJobs
from jobqueue.store.paused_search import PausedSearch
from jobqueue.store.schedule_ticks import Ticks
from jobqueue.store.user_transactions import UserTransactions
from jobqueue.tasks import Registry
from jobqueue.worker import process_identity
from jobqueue.worker.claim.claimer import Claimer
from jobqueue.worker.claim.cursors import ClaimCursors
from jobqueue.worker.claim.lanes import LanePlanner
from jobqueue.worker.claim.planner import ClaimPlanner
from jobqueue.worker.claim_and_complete import SingleWriterLoop
from jobqueue.worker.complete.completer import Completer
from jobqueue.worker.complete.outcome_writer import OutcomeWriter
from jobqueue.worker.connections import Connections
from jobqueue.worker.event_dispatcher import EventDispatcher
from jobqueue.worker.execute.autoscale import Scaler
from jobqueue.worker.execute.event_loop import AsyncRunner
from jobqueue.worker.execute.exec_task import WithExec
from jobqueue.worker.execute.executor import Executor
from jobqueue.worker.execute.thread_pool import ThreadPool
from jobqueue.worker.execute.timeouts import TimeoutWatchdog
from jobqueue.worker.exit_conditions import ExitConditions, exit_watches
from jobqueue.worker.handler.run import HandlerRunner, Middleware
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.isolate.pool import ProcessPool
from jobqueue.worker.log_context import name_worker
from jobqueue.worker.observe.history import HistoryWriter
from jobqueue.worker.observe.metrics import Metrics
from jobqueue.worker.observe.reporter import Reporter
from jobqueue.worker.outage import Outage
from jobqueue.worker.service import Service
from jobqueue.worker.settings import WorkerSettings
from jobqueue.worker.shared_poll import SharedPoll
from jobqueue.worker.upkeep.heartbeat import Heartbeat, registration
from jobqueue.worker.upkeep.listener import Listener
from jobqueue.worker.upkeep.pruner import Pruner
from jobqueue.worker.upkeep.reaper import Reaper
from jobqueue.worker.upkeep.scheduler import Scheduler
from jobqueue.worker.upkeep.ticker import Ticker


@dataclass(frozen=True, slots=True)
class Wakeups:
    """Wakes the services that claim and complete. May be used from any thread."""

    planner: ClaimPlanner
    claimer: Service
    completer: Service
    inflight: InFlight
    notifier: Notifier

    def wake_claimer(self, heard: Wakeup = Wakeup.COMMIT) -> None:
        """Claim soon, since there may be jobs; at once if an enqueue has announced them."""
        self.planner.hint_work(announced=heard is Wakeup.NOTIFIED)
        self.claimer.wake()

    def wake_all_workers(self) -> None:
        """Announce jobs to this worker's claimer and to other workers."""
        self.wake_claimer(Wakeup.NOTIFIED)
        self.notifier.notify()

    def reaped(self, lost: Sequence[ReapedJob]) -> None:
        """Bring lanes back that a lost worker may have filled, and announce its jobs."""
        self.planner.lanes.recheck({name for job in lost for name in (job.lane, job.queue) if name})
        self.wake_all_workers()

    def wake_completer(self) -> None:
        """Write an outcome that was put into the outbox, and claim more if the inbox runs low."""
        self.completer.wake()
        if self.inflight.inbox.qsize() <= self.planner.low_watermark:
            self.claimer.wake()


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The parts of a worker that is about to start, those that it needs to start and stop."""

    name: str
    heartbeat: Heartbeat
    planner: ClaimPlanner
    outcome_writer: OutcomeWriter
    claimer: Service
    completer: Service
    """The same service as the claimer on a database with one writer."""
    thread_pool: ThreadPool
    async_runner: AsyncRunner
    notifier: Notifier
    subscription: Subscription
    shared_poll: SharedPoll
    event_dispatcher: EventDispatcher
    wakeups: Wakeups
    services: Sequence[Service]
    """In the order in which they start; they stop in the reverse one."""

    def discard(self) -> None:
        """Close what they hold, if none has started."""
        self.notifier.close()
        self.subscription.close()


class Assembly:
    """The parts of one worker that exist before it starts, and the way to build the others."""

    def __init__(
        self,
        url: str | URL,
        registry: Registry,
        settings: WorkerSettings,
        *,
        events: EventStream,
        middleware: Sequence[Middleware],
        enqueue_hooks: Sequence[EnqueueHook],
        handlers: Store | None,
    ) -> None:
        self._registry = registry = WithExec(registry) if settings.allow_exec else registry
        self._settings = settings
        self._events = events
        self._middleware = tuple(middleware)
        self._enqueue_hooks = tuple(enqueue_hooks)
        self.inflight = inflight = InFlight(settings.concurrency, settings.lease)
        self.metrics = Metrics(inflight)
        self.exit_conditions = stop = ExitConditions()
        self.connections = Connections(
            url, handlers, at_work=lambda: bool(inflight.held), gives_up=stop.is_over
        )
        self.store = self.connections.main
        self.process_pool = ProcessPool(
            self.store.url, registry, settings.max_snoozes, settings.max_crashes
        )
        self._leases = Leases(self.connections.upkeep)
        self._maintenance = Maintenance(self.connections.upkeep)

    def build(self) -> WorkerParts:
        """Build the other parts, in the process and the thread that start the worker."""
        backend = self.store.backend
        with ExitStack() as opened:  # Closed if a later part cannot be built.
            notifier = Notifier(backend.notification_sender(self.store.engine))
            opened.callback(notifier.close)
            subscription = backend.subscription(self.store.url, self.connections.wait_policy)
            opened.callback(subscription.close)
            parts = self._build(notifier, subscription)
            opened.pop_all()
        return parts

    def _build(self, notifier: Notifier, subscription: Subscription) -> WorkerParts:
        settings, inflight = self._settings, self.inflight
        me = process_identity.this_process()
        name = settings.name or f"{me.host}-{me.pid}"
        name_worker(name)
        shared_poll = SharedPoll(self.connections.upkeep, self._leases, inflight, me)
        event_dispatcher = EventDispatcher(self._events)
        planner = self._planner(shared_poll)
        outcome_writer = self._outcome_writer(name, event_dispatcher, planner.lanes)
        claimer, completer = self._claimer_and_completer(planner, outcome_writer)
        wakeups = Wakeups(planner, claimer, completer, inflight, notifier)
        heartbeat = self._heartbeat(name, me, subscription.address, wakeups)
        thread_pool, async_runner, watchers = self._runners(wakeups)
        services = [
            heartbeat,
            event_dispatcher,
            *([completer] if completer is claimer else [completer, claimer]),
            Listener(subscription, wakeups.wake_claimer, shared_poll.invalidate, planner),
            *watchers,
            *self._upkeep_services(shared_poll, me, wakeups, event_dispatcher),
            *self._observers(name),
            *exit_watches(
                self.exit_conditions, settings, self._maintenance, planner, list(self._registry)
            ),
        ]
        backend, lease = self.store.backend, inflight.lease
        outage = Outage(backend.is_unavailable, lambda: lease.confirmed_at, backend.is_locked)
        for service in services:
            service.outage = outage
        return WorkerParts(
            name=name,
            heartbeat=heartbeat,
            planner=planner,
            outcome_writer=outcome_writer,
            claimer=claimer,
            completer=completer,
            thread_pool=thread_pool,
            async_runner=async_runner,
            notifier=notifier,
            subscription=subscription,
            shared_poll=shared_poll,
            event_dispatcher=event_dispatcher,
            wakeups=wakeups,
            services=tuple(services),
        )

    def _heartbeat(
        self, name: str, me: process_identity.Identity, address: str | None, wakeups: Wakeups
    ) -> Heartbeat:
        store = self.connections.heartbeat
        return Heartbeat(
            Leases(store),
            Completion(store),
            self.inflight,
            registration(self._settings, name, self._registry, me, address),
            registered=wakeups.wake_claimer,
            exhausted=self.exit_conditions.fail,
        )

    def _planner(self, shared_poll: SharedPoll) -> ClaimPlanner:
        settings = self._settings
        return ClaimPlanner(
            self.store,
            ClaimCursors(Claims(self.store), settings.queues, PausedSearch(PausedJobs(self.store))),
            LanePlanner(self.store, settings.queues),
            self.inflight,
            shared_poll,
            poll=settings.poll,
            max_jobs=settings.max_jobs,
        )

    def _outcome_writer(
        self,
        name: str,
        event_dispatcher: EventDispatcher,
        lanes: LanePlanner,
    ) -> OutcomeWriter:
        return OutcomeWriter(
            self.store,
            Completion(self.store),
            self.inflight,
            name,
            events=event_dispatcher,
            metrics=self.metrics,
            lanes=lanes,
        )

    def _claimer_and_completer(
        self, planner: ClaimPlanner, outcome_writer: OutcomeWriter
    ) -> tuple[Service, Service]:
        if self.store.backend.single_writer:
            both = SingleWriterLoop(self.store, planner, outcome_writer)
            return both, both
        claimer = Claimer(self.store, planner, self.connections.claiming)
        return claimer, Completer(self.store, outcome_writer, claimer.wake)

    def _runners(self, wakeups: Wakeups) -> tuple[ThreadPool, AsyncRunner, list[Service]]:
        """What runs handlers, and the services that watch over it."""
        settings, inflight, handlers = self._settings, self.inflight, self.connections.handlers
        finished, exhausted = wakeups.wake_completer, self.exit_conditions.fail
        executor = Executor(
            inflight,
            self._registry,
            HandlerRunner(self._middleware, settings.max_snoozes),
            claims=Claims(handlers),
            transactions=UserTransactions(handlers),
            finished=finished,
            process_pool=self.process_pool,
        )
        thread_pool = ThreadPool(executor, inflight)
        concurrency = settings.async_concurrency
        async_runner = AsyncRunner(inflight, executor, finished, concurrency=concurrency)
        inflight.send_to_loop(executor.runs_on_loop, async_runner.submit)
        asynchronous = sum(task.runs_on_loop for task in self._registry.values())
        if asynchronous:
            share = asynchronous / len(self._registry)
            inflight.capacity.asynchronous.enable(concurrency, share)
        watchdog = TimeoutWatchdog(
            inflight,
            thread_pool,
            async_runner,
            finished=finished,
            exhausted=exhausted,
            process_pool=self.process_pool,
        )
        services: list[Service] = [watchdog]
        if settings.scaling is not None:
            changed = wakeups.wake_claimer
            services.append(
                Scaler(
                    inflight, thread_pool, settings.scaling, waiting=self._waiting, changed=changed
                )
            )
        return thread_pool, async_runner, services

    def _upkeep_services(
        self,
        shared_poll: SharedPoll,
        me: process_identity.Identity,
        wakeups: Wakeups,
        event_dispatcher: EventDispatcher,
    ) -> list[Service]:
        """Due jobs, dead workers, retention, schedules."""
        return [
            Scheduler(
                self._maintenance,
                shared_poll,
                self._settings.poll,
                wakeups.wake_all_workers,
                event_dispatcher,
            ),
            Reaper(
                self._leases,
                shared_poll,
                self.inflight,
                me,
                reaped=wakeups.reaped,
                events=event_dispatcher,
            ),
            Pruner(self._maintenance, self._settings.retention),
            Ticker(
                Ticks(self.connections.upkeep),
                shared_poll,
                self._registry,
                self._enqueue_hooks,
                wakeups.wake_all_workers,
            ),
        ]

    def _observers(self, name: str) -> list[Service]:
        """What writes down and logs the worker's own work."""
        history = History(self.connections.upkeep)
        services: list[Service] = [HistoryWriter(history, name, self.metrics.window())]
        interval = self._settings.stats_interval
        if interval is not None:
            window = self.metrics.window()
            services.append(Reporter(self.inflight, window, interval, self._waiting))
        return services

    @property
    def _waiting(self) -> Callable[[int], int]:
        """Counts the jobs that this worker could claim, up to a limit."""
        queues = self._settings.queues
        return partial(self._maintenance.available, None if queues is None else tuple(queues))
