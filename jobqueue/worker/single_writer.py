"""Claim and complete in one transaction, where the database has one writer."""

import time

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
            intake.inflight.round_failed()
            raise
        self._set_gap(asked, began, time.monotonic())
        return states, claims

    def _set_gap(self, asked: float, began: float, ended: float) -> None:
        if began - asked > COMPANY_WAIT:
            self._company_until = ended + COMPANY
        company = ended < self._company_until
        self._intake.inflight.contention.saw_foreign_writer(lately=company)
        share = GAP_SHARE_IN_COMPANY if company else GAP_SHARE
        self._gap = min(max(GAP, share * (ended - began)), GAP_MAX)
        self._gap_until = ended + self._gap
