"""The heartbeat: renews the lease, reads cancel requests, writes progress."""

from collections.abc import Callable, Iterable

from jobqueue.errors import DatabaseReplaced
from jobqueue.records import Registration, counted
from jobqueue.store.claims import WorkerRef
from jobqueue.store.completion import Completion
from jobqueue.store.leases import Leases
from jobqueue.worker.inflight import InFlight
from jobqueue.worker.log_context import about, log
from jobqueue.worker.process_identity import Identity, boottime
from jobqueue.worker.service_thread import Service
from jobqueue.worker.settings import WorkerSettings

CANCEL_POLL_INTERVAL = 0.5  # seconds between two reads of the cancel requests
BEATS_PER_LEASE = 3


class Heartbeat(Service):
    """Beats on a connection of its own, so that no claim and no handler can hold it up."""

    def __init__(
        self,
        leases: Leases,
        completion: Completion,
        inflight: InFlight,
        registration: Registration,
        *,
        registered: Callable[[], None],
        exhausted: Callable[[str], None],
    ) -> None:
        super().__init__("heartbeat")
        self._leases = leases
        self._completion = completion
        self._inflight = inflight
        self._registration = registration
        self._registered = registered
        self._exhausted = exhausted
        self._beat_at = float("-inf")
        self._stop_noted: WorkerRef | None = None
        # After an outage it has to land before a reaper has watched it be silent for a lease.
        self._backoff_max = min(self._backoff_max, registration.lease / BEATS_PER_LEASE)

    def register(self) -> None:
        """Take a lease."""
        sent = boottime()
        id_ = self._leases.register(self._registration)
        self._inflight.lease.worker = WorkerRef(id_, self._registration.name)
        self._inflight.lease.confirm(sent)
        self._beat_at = sent

    def tick(self) -> float:
        """Renew the lease if it is time; then write progress and cancel jobs."""
        try:
            return self._look_after()
        except DatabaseReplaced as error:
            self._exhausted(str(error))  # Waiting mends everything else.
            raise
        except Exception:
            self._inflight.round_failed()
            raise

    def _look_after(self) -> float:
        inflight = self._inflight
        interval = self._registration.lease / BEATS_PER_LEASE
        if inflight.lease.worker is None:
            self.register()
            self._registered()
        elif (
            boottime() - self._beat_at >= interval
            or not inflight.lease.good()
            or self._looks_for_the_end_of_an_outage()
        ):
            self._beat(inflight.lease.worker)
        if inflight.running and inflight.lease.worker is not None:
            self._report(inflight.lease.worker)
        if inflight.held and inflight.lease.worker is not None:
            self._cancel(inflight.lease.worker)
        if inflight.closing and inflight.running and inflight.lease.worker is not self._stop_noted:
            self._note_stop(inflight.lease.worker)
        return min(CANCEL_POLL_INTERVAL, interval / 2)

    def _looks_for_the_end_of_an_outage(self) -> bool:
        return self.outage is not None and self.outage.is_on and not self.stopping

    def drain(self) -> None:
        """Write the last progress, if the database answers."""
        self.round()

    def _beat(self, worker: WorkerRef) -> None:
        inflight = self._inflight
        sent = boottime()
        alive = self._leases.renew(
            worker.id,
            running=len(inflight.running),
            processed=inflight.processed,
            errored=inflight.errored,
            concurrency=inflight.capacity.threads,
        )
        if alive:
            inflight.lease.confirm(sent)
            self._beat_at = sent
            return
        count = inflight.abandon()
        log.error(
            "worker %s lost its lease: it was silent for longer than %g s; %s abandoned",
            worker.name,
            self._registration.lease,
            counted(count, "claim"),
        )
        self.register()
        self._registered()

    def _report(self, worker: WorkerRef) -> None:
        # A transaction of the handler's may hold the row: this one would wait for its end.
        running = list(self._inflight.running.values())
        contexts = [each for each in running if not each.finishing]
        said = {context: report for context in contexts if (report := context.unwritten_progress())}
        if not said:
            return
        self._completion.save_progress(worker, list(said.values()))
        for context, report in said.items():
            context.progress_written(report)

    def _note_stop(self, worker: WorkerRef | None) -> None:
        """Say that the worker only ends what it runs; one that runs nothing is gone at once.

        Once, by this thread, which the stop does not wait for while jobs run.
        """
        if worker is not None:
            self._leases.note_stop(worker.id)
            self._stop_noted = worker

    def _cancel(self, worker: WorkerRef) -> None:
        for id_, fence in self._leases.cancel_requests(worker.id):
            claim = self._inflight.request_cancel(id_, fence)
            if claim is not None:
                said = about(claim, "cancel")
                log.info("job %d (%s) is to be cancelled", id_, claim.task, extra=said)


def registration(
    settings: WorkerSettings,
    name: str,
    tasks: Iterable[str],
    me: Identity,
    wakeup_address: str | None,
) -> Registration:
    """Return what a worker registers about itself."""
    return Registration(
        name=name,
        wakeup_address=wakeup_address,
        queues=None if settings.queues is None else tuple(settings.queues),
        tasks=tuple(tasks),
        concurrency=settings.concurrency,
        lease=settings.lease,
        **me._asdict(),
    )
