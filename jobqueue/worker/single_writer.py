"""The line: claims in, outcomes out. Two threads on two connections, or both in one transaction."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from jobqueue.records import Claim, Outcome
from jobqueue.states import State
from jobqueue.store.database import Store
from jobqueue.worker.claim.planner import Intake
from jobqueue.worker.complete.outcome_writer import Exit
from jobqueue.worker.service import Service

GAP = 0.0006  # seconds, at least, in which the database is left to other writers
GAP_SHARE = 0.15  # of the time that the transaction took
GAP_SHARE_IN_COMPANY = 1.0  # so that others find it free half of the time
GAP_MAX = 0.1  # seconds; who finds the file locked looks again at least this often
COMPANY = 2.0  # seconds after a wait for a writer that knows nothing of turns
COMPANY_WAIT = 0.0009  # seconds to begin that tell of such a writer: SQLite waits for 1 ms first


class Claimer(Service):
    """Claims jobs, on a connection that the completer does not need. Takes it within `turn()`."""

    def __init__(
        self, store: Store, intake: Intake, turn: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__("claimer")
        self._store = store
        self._intake = intake
        self._turn = turn

    def tick(self) -> float:
        """Claim as much as there is room for."""
        with self._turn():
            self._claim()
        return self._intake.rest()

    def _claim(self) -> None:
        intake = self._intake
        intake.began = time.monotonic()
        intake.reconcile()
        intake.give_back_hoard()
        wanted = intake.wanted()
        if wanted and not intake.guess(wanted) and intake.look():
            with self._store.write() as connection:
                claims = intake.claim(connection, wanted)
            intake.hand_out(claims)


class Completer(Service):
    """Writes outcomes down. The commit under way is the batching window: no timer."""

    def __init__(self, store: Store, exit_: Exit, settled: Callable[[], None]) -> None:
        super().__init__("completer")
        self._store = store
        self._exit = exit_
        self._settled = settled

    def tick(self) -> float | None:
        """Write one batch."""
        batch = self._exit.gather()
        if not batch:
            return 0.5
        try:
            with self._store.write() as connection:
                states = self._exit.finish(connection, batch)
        except Exception as error:
            if self._exit.is_content(error):
                self._exit.one_by_one()
                return 0
            self._exit.inflight.failed_rounds += 1
            raise
        self._exit.settle(states)
        self._settled()  # The claimer may have been waiting for the outbox to get shorter.
        return 0


class Turn(Service):
    """Where there is one writer: completions and the next claim in one transaction."""

    def __init__(self, store: Store, intake: Intake, exit_: Exit) -> None:
        super().__init__("turn")
        self._store = store
        self._intake = intake
        self._exit = exit_
        self._gap = GAP
        self._gap_until = 0.0
        self._company_until = 0.0

    def tick(self) -> float | None:
        """Write one batch and claim the next, in this process's turn among our processes."""
        intake = self._intake
        intake.began = time.monotonic()
        with self._store.turn() as waited:
            if waited:  # The executors have done what they had: the gap is time to look at it.
                free_until = time.monotonic() + self._gap
                prepared = self._prepare()
                self._leave_gap(free_until)
            else:
                self._leave_gap(self._gap_until)
                prepared = self._prepare()
            written = self._write(*prepared)
        if written is not None:
            states, claims = written
            self._exit.settle(states)
            if claims is not None:
                intake.hand_out(claims)
        return intake.rest()

    def _prepare(self) -> tuple[int, list[Outcome]]:
        """How many jobs to claim, and what became of others."""
        self._intake.reconcile()
        self._intake.give_back_hoard()
        return self._intake.wanted(), self._exit.gather()

    def _leave_gap(self, until: float) -> None:
        """Let writers in that know nothing of turns, above all the user's sessions.

        Before a transaction, not after it: the executors of the process whose turn it was have work
        by then, and to wake up among them takes longer than the gap.
        """
        gap = until - time.monotonic()
        if gap > 0:
            self._stopping.wait(gap)

    def _write(
        self, wanted: int, batch: list[Outcome]
    ) -> tuple[dict[int, State], list[Claim] | None] | None:
        """One transaction: what became of the outcomes, and the claims if any were asked for.

        None if nothing was written, or nothing is left to do.
        """
        intake, exit_ = self._intake, self._exit
        if wanted and not batch and intake.guess(wanted):
            self._gap_until = time.monotonic() + GAP
            return None
        if wanted and not intake.look():
            wanted = 0
        if not batch and not wanted:
            return None
        claims: list[Claim] | None = None
        states: dict[int, State] = {}
        asked = time.monotonic()
        try:
            with self._store.write() as connection:
                began = time.monotonic()
                if batch:
                    states = exit_.finish(connection, batch)
                if wanted:
                    claims = intake.claim(connection, wanted)
        except Exception as error:
            if batch and exit_.is_content(error):
                exit_.one_by_one()
                return None
            intake.inflight.failed_rounds += 1
            raise
        self._set_gap(asked, began, time.monotonic())
        return states, claims

    def _set_gap(self, asked: float, began: float, ended: float) -> None:
        if began - asked > COMPANY_WAIT:
            self._company_until = ended + COMPANY
        company = self._intake.inflight.company = ended < self._company_until
        share = GAP_SHARE_IN_COMPANY if company else GAP_SHARE
        self._gap = min(max(GAP, share * (ended - began)), GAP_MAX)
        self._gap_until = ended + self._gap
