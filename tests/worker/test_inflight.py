"""Two claims of one job in one worker, whose first one was lost: what ends it leaves the second one alone."""

from typing import NamedTuple

import pytest
from msgspec.structs import replace

from jobqueue.records import Claim, Succeeded
from jobqueue.worker.handler.context import Attempt
from jobqueue.worker.inflight import InFlight
from tests.worker.conftest import Stepped

pytestmark = pytest.mark.databases("sqlite")


class Two(NamedTuple):
    """The claims, of which the second one is held."""

    inflight: InFlight
    first: Claim
    second: Claim


@pytest.fixture
def two(stepped: Stepped) -> Two:
    worker = stepped()

    @worker.queue.task
    def work() -> None: ...

    work.enqueue()
    (first,) = worker.claim()
    second = replace(first, fence=first.fence + 2)
    worker.inflight.dispatch([second], worker.inflight.lease.worker)
    assert worker.inflight.held == {first.id: second}
    return Two(worker.inflight, first, second)


def test_the_answer_to_the_first_outcome_does_not_forget_the_second_claim(two: Two) -> None:
    two.inflight.acknowledged([Succeeded(two.first, None, None, 1.0, 0.0)])
    assert two.inflight.held == {two.first.id: two.second}
    two.inflight.acknowledged([Succeeded(two.second, None, None, 1.0, 0.0)])
    assert two.inflight.held == {}


def test_a_stop_gives_the_second_claim_back_and_that_once(two: Two) -> None:
    for claim in (two.first, two.second):
        two.inflight.begin(Attempt(claim, None, str))  # type: ignore[arg-type]
    assert two.inflight.detach_all() == [two.second]
    assert two.inflight.outbox.get_nowait().claim is two.second
    assert two.inflight.outbox.empty()
