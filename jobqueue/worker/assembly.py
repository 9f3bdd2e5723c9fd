"""Builds a worker's parts and wires their wake-ups."""

from collections.abc import Sequence
from contextlib import ExitStack

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
from jobqueue.worker.service_thread import Service
from jobqueue.worker.settings import WorkerSettings
from jobqueue.worker.shared_poll import SharedPoll
from jobqueue.worker.upkeep.heartbeat import Heartbeat, registration
from jobqueue.worker.upkeep.listener import Listener
from jobqueue.worker.upkeep.pruner import Pruner
from jobqueue.worker.upkeep.reaper import Reaper
from jobqueue.worker.upkeep.scheduler import Scheduler
from jobqueue.worker.upkeep.ticker import Ticker


class Assembly:
    """The parts of one worker that exist before it starts, and the way to build the others."""

    def __init__(
        self,
        registry: Registry,
        settings: WorkerSettings,
        *,
        events: EventStream,
        middleware: Sequence[Middleware],
        enqueue_hooks: Sequence[EnqueueHook],  # For the jobs of schedules.
        handlers: Store,
    ) -> None:
        self.registry = registry = WithExec(registry) if settings.allow_exec else registry
        self.settings = settings
        self.events = events
        self.middleware = tuple(middleware)
        self.enqueue_hooks = tuple(enqueue_hooks)
        self.inflight = inflight = InFlight(settings.concurrency, settings.lease)
        self.metrics = Metrics(inflight)
        self.exit_conditions = stop = ExitConditions()
        self.connections = Connections(
            handlers, at_work=lambda: bool(inflight.held), gives_up=stop.is_over
        )
        self.store = self.connections.main
        self.process_pool = ProcessPool(
            self.store.url, registry, settings.max_snoozes, settings.max_crashes
        )

    def build(self) -> "WorkerParts":
        """Build the other parts, in the process and the thread that start the worker."""
        backend = self.store.backend
        with ExitStack() as opened:  # Closed if a later part cannot be built.
            notifier = Notifier(backend.notification_sender(self.store.engine))
            opened.callback(notifier.close)
            subscription = backend.subscription(self.store.url, self.connections.wait_policy)
            opened.callback(subscription.close)
            parts = WorkerParts(self, notifier, subscription)
            opened.pop_all()
        return parts


class WorkerParts:
    """The parts of a worker that is about to start, and what wakes them, from any thread."""

    def __init__(self, assembly: Assembly, notifier: Notifier, subscription: Subscription) -> None:
        self._assembly = assembly
        self._inflight = inflight = assembly.inflight
        self.notifier, self._subscription = notifier, subscription
        store, upkeep = assembly.store, assembly.connections.upkeep
        leases = Leases(upkeep)
        self._maintenance = Maintenance(upkeep)
        me = process_identity.this_process()
        self.name = assembly.settings.name or f"{me.host}-{me.pid}"
        name_worker(self.name)
        self.shared_poll = SharedPoll(upkeep, leases, inflight, me)
        self.event_dispatcher = EventDispatcher(assembly.events)
        self.planner = self._planner()
        self.outcome_writer = OutcomeWriter(
            store,
            Completion(store),
            inflight,
            self.name,
            events=self.event_dispatcher,
            metrics=assembly.metrics,
            lanes=self.planner.lanes,
        )
        self.claimer: Service
        self.completer: Service
        """The same service as the claimer on a database with one writer."""
        if store.backend.single_writer:
            self.claimer = SingleWriterLoop(store, self.planner, self.outcome_writer)
            self.completer = self.claimer
        else:
            self.claimer = Claimer(store, self.planner, assembly.connections.claiming)
            self.completer = Completer(store, self.outcome_writer, self.claimer.wake)
        self.heartbeat = self._heartbeat(me)
        watchers = self._runners()
        self.services: Sequence[Service] = (
            self.heartbeat,
            self.event_dispatcher,
            *dict.fromkeys((self.completer, self.claimer)),
            Listener(subscription, self.wake_claimer, self.shared_poll.invalidate, self.planner),
            *watchers,
            *self._upkeep_services(leases, me),
            *self._observers(),
            *self._exit_watches(),
        )
        """In the order in which they start; they stop in the reverse one."""
        backend, lease = store.backend, inflight.lease
        outage = Outage(backend.is_unavailable, lambda: lease.confirmed_at, backend.is_locked)
        for service in self.services:
            service.outage = outage

    def wake_claimer(self, heard: Wakeup = Wakeup.COMMIT) -> None:
        """Claim soon, since there may be jobs; at once if an enqueue has announced them."""
        self.planner.hint_work(announced=heard is Wakeup.NOTIFIED)
        self.claimer.wake()

    def _wake_all_workers(self) -> None:
        """Announce jobs to this worker's claimer and to other workers."""
        self.wake_claimer(Wakeup.NOTIFIED)
        self.notifier.notify()

    def _reaped(self, lost: Sequence[ReapedJob]) -> None:
        """Bring lanes back that a lost worker may have filled, and announce its jobs."""
        self.planner.lanes.lost(lost)
        self._wake_all_workers()

    def _wake_completer(self) -> None:
        """Write an outcome that was put into the outbox, and claim more if the inbox runs low."""
        self.completer.wake()
        if self._inflight.inbox.qsize() <= self.planner.low_watermark:
            self.claimer.wake()

    def discard(self) -> None:
        """Close what they hold, if none has started."""
        self.notifier.close()
        self._subscription.close()

    def _planner(self) -> ClaimPlanner:
        store, settings = self._assembly.store, self._assembly.settings
        return ClaimPlanner(
            store,
            ClaimCursors(Claims(store), settings.queues, PausedSearch(PausedJobs(store))),
            LanePlanner(store, settings.queues),
            self._inflight,
            self.shared_poll,
            poll=settings.poll,
            max_jobs=settings.max_jobs,
        )

    def _heartbeat(self, me: process_identity.Identity) -> Heartbeat:
        assembly, address = self._assembly, self._subscription.address
        store = assembly.connections.heartbeat
        return Heartbeat(
            Leases(store),
            Completion(store),
            self._inflight,
            registration(assembly.settings, self.name, assembly.registry, me, address),
            registered=self.wake_claimer,
            exhausted=assembly.exit_conditions.fail,
        )

    def _runners(self) -> list[Service]:
        """Make what runs handlers; return the services that watch over it."""
        assembly, inflight, settings = self._assembly, self._inflight, self._assembly.settings
        handlers, exhausted = assembly.connections.handlers, assembly.exit_conditions.fail
        executor = Executor(
            inflight,
            assembly.registry,
            HandlerRunner(assembly.middleware, settings.max_snoozes),
            claims=Claims(handlers),
            transactions=UserTransactions(handlers),
            finished=self._wake_completer,
            process_pool=assembly.process_pool,
        )
        self.thread_pool = thread_pool = ThreadPool(executor, inflight)
        concurrency, finished = settings.async_concurrency, self._wake_completer
        self.async_runner = AsyncRunner(inflight, executor, finished, concurrency=concurrency)
        inflight.send_to_loop(executor.runs_on_loop, self.async_runner.submit)
        asynchronous = sum(task.runs_on_loop for task in assembly.registry.values())
        if asynchronous:
            share = asynchronous / len(assembly.registry)
            inflight.capacity.asynchronous.enable(concurrency, share)
        watchdog = TimeoutWatchdog(
            inflight,
            thread_pool,
            self.async_runner,
            finished=finished,
            exhausted=exhausted,
            process_pool=assembly.process_pool,
        )
        if settings.min_concurrency is None:
            return [watchdog]
        waiting, changed = self._waiting, self.wake_claimer
        return [watchdog, Scaler(inflight, thread_pool, settings, waiting=waiting, changed=changed)]

    def _upkeep_services(self, leases: Leases, me: process_identity.Identity) -> list[Service]:
        """Due jobs, dead workers, retention, schedules."""
        assembly, settings = self._assembly, self._assembly.settings
        return [
            Scheduler(
                self._maintenance,
                self.shared_poll,
                settings.poll,
                self._wake_all_workers,
                self.event_dispatcher,
            ),
            Reaper(
                leases,
                self.shared_poll,
                self._inflight,
                me,
                reaped=self._reaped,
                events=self.event_dispatcher,
            ),
            Pruner(self._maintenance, settings.retention),
            Ticker(
                Ticks(assembly.connections.upkeep),
                self.shared_poll,
                assembly.registry,
                assembly.enqueue_hooks,
                self._wake_all_workers,
            ),
        ]

    def _observers(self) -> list[Service]:
        """What writes down and logs the worker's own work."""
        assembly = self._assembly
        history = History(assembly.connections.upkeep)
        services: list[Service] = [HistoryWriter(history, self.name, assembly.metrics.window())]
        interval = assembly.settings.stats_interval
        if interval is not None:
            window = assembly.metrics.window()
            services.append(Reporter(self._inflight, window, interval, self._waiting))
        return services

    def _exit_watches(self) -> list[Service]:
        assembly = self._assembly
        stop, tasks = assembly.exit_conditions, list(assembly.registry)
        return exit_watches(stop, assembly.settings, self._maintenance, self.planner, tasks)

    def _waiting(self, most: int) -> int:
        """Count the jobs that this worker could claim, up to a limit."""
        queues = self._assembly.settings.queues
        return self._maintenance.available(None if queues is None else tuple(queues), most)
