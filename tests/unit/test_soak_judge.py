"""The judge of the soak: it complains of what nothing explains, and of nothing else. The logs here are written by hand."""

from collections import Counter

import pytest

from bench.soak import judge as causes
from bench.soak.evidence import Attempt, Enqueued, Evidence, Life, Row, runs_of
from bench.soak.judge import Verdict, judge

LEASE, WINDOW = 3.0, 4.0
A, B = "soak-1", "soak-2"


def log(*runs: tuple) -> list:
    """Lines of the handlers' log: (worker, fence, began, ended or None, end or raised) of job 7, number 1.

    Each was claimed half a second before it began.
    """
    lines = []
    for worker, fence, began, ended, how in runs:
        who = [1, 7, 1, fence, worker, 100, began - 0.5]
        lines.append(["begin", *who, began])
        lines += [[how, *who, ended]] if ended else []
    return lines


def verdict(
    *runs: tuple, task="work", state="succeeded", attempts=(), crashes=(), effects=0, **lives: Life
) -> Verdict:
    found, stalls = runs_of(log(*runs))
    everyone = {name: Life(name, -20.0, ready=-19.0) for name in (A, B)}
    everyone |= {life.name: life for life in lives.values()}
    evidence = Evidence(LEASE, everyone, found, list(crashes), [], WINDOW)
    most = 1 if task == "once" else 10
    row = Row(7, 1, task, state, 1, most, 9, B, None, 99.0, [Attempt(*one) for one in attempts])
    return judge(evidence, [row], [Enqueued(1, 7, task, 5.0)], Counter({1: effects}))


def kinds(verdict: Verdict) -> list[str]:
    return [complaint.what for complaint in verdict.complaints]


def test_one_run_is_nothing_to_complain_about() -> None:
    seen = verdict((A, 1, 10.0, 11.0, "end"))
    assert (seen.complaints, seen.causes) == ([], Counter())


def test_a_second_run_that_nothing_explains_is_complained_about() -> None:
    assert kinds(verdict((A, 1, 10.0, 11.0, "end"), (B, 3, 20.0, 21.0, "end"))) == [
        "it ran again, and nothing explains it"
    ]


LOST = (1, A, "lost", "WorkerLost", 20.0)
EXPLAINED = {
    causes.RETRY: {"attempts": [(1, A, "errored", "Planned", 11.0)], "how": "raised"},
    causes.KILLED: {"attempts": [LOST], "a": Life(A, 0, 1, killed=15.0, exited=15.0, code=-9)},
    causes.FREEZE: {"attempts": [LOST], "a": Life(A, 0, 1, stopped=[(14.0, 19.0)])},
    causes.STOPPED: {
        "attempts": [(1, A, "released", None, 19.0)],
        "a": Life(A, 0, 1, terminated=9.0, exited=19.5, code=1),
    },
    causes.LOST: {"crashes": [12.0]},
}


@pytest.mark.parametrize("why", EXPLAINED)
def test_a_second_run_that_is_explained_is_counted_by_its_cause(why: str) -> None:
    given = dict(EXPLAINED[why])
    how = given.pop("how", None)
    first = (A, 1, 10.0, 11.0, how) if how else (A, 1, 10.0, None, None)
    seen = verdict(first, (B, 3, 20.0, 21.0, "end"), **given)
    assert (kinds(seen), dict(seen.causes)) == ([], {why: 1})


NOT_ENOUGH = {
    "killed long after its outcome": (11.0, {"a": Life(A, 0, 1, killed=15.0)}),
    "killed after the second run had begun": (None, {"a": Life(A, 0, 1, killed=25.0)}),
    "frozen for less than a lease": (None, {"a": Life(A, 0, 1, stopped=[(14.0, 15.0)])}),
    "frozen before it began": (None, {"a": Life(A, 0, 1, stopped=[(2.0, 7.0)])}),
    "stopped in order": (11.0, {"a": Life(A, 0, 1, terminated=9.0, exited=12.0, code=0)}),
    "a crash long after its outcome": (11.0, {"crashes": [18.0]}),
    "a crash long before its claim": (None, {"crashes": [4.0]}),
    "a crash long after its claim": (None, {"crashes": [14.0]}),
    "an error of another claim": (None, {"attempts": [(5, A, "errored", "Planned", 11.0)]}),
}


@pytest.mark.parametrize("case", NOT_ENOUGH)
def test_what_happened_at_another_time_explains_nothing(case: str) -> None:
    ended, given = NOT_ENOUGH[case]
    seen = verdict((A, 1, 10.0, ended, ended and "end"), (B, 3, 20.0, 21.0, "end"), **given)
    assert "it ran again, and nothing explains it" in kinds(seen)


def test_a_job_of_one_attempt_begins_again_only_if_its_claim_was_lost_by_the_server() -> None:
    runs = (A, 1, 10.0, None, None), (B, 3, 20.0, 21.0, "end")
    killed = Life(A, 0, 1, killed=15.0)
    assert kinds(verdict(*runs, task="once", a=killed)) == ["a job of one attempt began twice"]
    assert kinds(verdict(*runs, task="once", a=killed, crashes=[11.0])) == []


def test_a_fence_is_given_twice_only_after_a_lost_commit() -> None:
    runs = (A, 1, 10.0, 11.0, "end"), (B, 1, 20.0, 21.0, "end")
    assert kinds(verdict(*runs)) == ["fence 1 was given twice"]
    seen = verdict(*runs, crashes=[10.5])
    assert (kinds(seen), seen.causes[causes.LOST]) == ([], 1)


def test_a_claim_that_was_made_again_after_a_crash_may_be_ended_by_the_first_ones_outcome() -> None:
    runs = (B, 3, 20.0, 21.0, "end"), (A, 1, 21.0, 22.0, "end")  # Claimed at 19.5 and at 20.5.
    assert kinds(verdict(*runs)) == ["a stale claim began: fence 1 after 3"]
    seen = verdict(*runs, crashes=[19.0])
    assert (kinds(seen), seen.causes[causes.RESENT], len(seen.notes)) == ([], 1, 1)


def test_a_frozen_worker_may_begin_a_stale_claim_only_in_the_moment_of_its_thaw() -> None:
    frozen = Life(B, 0, 1, stopped=[(9.0, 16.0)])
    begun = (A, 3, 14.0, 15.0, "end")
    assert kinds(verdict(begun, (B, 1, 16.1, 17.0, "end"), b=frozen)) == []
    assert kinds(verdict(begun, (B, 1, 19.4, 20.0, "end"), b=frozen)) == [
        "a stale claim began: fence 1 after 3"
    ]


def test_the_lease_of_a_worker_that_lives_never_ends() -> None:
    taken = {"attempts": [(1, A, "lost", "WorkerLost", 20.0)]}
    assert kinds(verdict((B, 3, 21.0, 22.0, "end"), **taken)) == ["a living worker lost its lease"]
    frozen = Life(A, 0, 1, stopped=[(15.0, 19.0)])
    assert kinds(verdict((B, 3, 21.0, 22.0, "end"), **taken, a=frozen)) == []


def test_a_worker_that_stops_in_order_leaves_a_claim_behind_only_soon_after_a_crash() -> None:
    stopped = Life(A, 0, 1, terminated=15.0, exited=20.1, code=0)
    given = {"attempts": [(1, A, "lost", "WorkerLost", 20.0)], "a": stopped}
    again = (B, 3, 21.0, 22.0, "end")
    assert kinds(verdict(again, **given)) == ["a worker that stopped in order left it behind"]
    assert kinds(verdict(again, **given, crashes=[12.0])) == []


def test_a_job_begins_no_more_after_its_worker_was_told_to_stop() -> None:
    told = Life(A, 0, 1, terminated=10.0, exited=20.0, code=0)
    assert kinds(verdict((A, 1, 14.0, 15.0, "end"), a=told)) == [
        "it began 4.0 s after its worker was told to stop"
    ]


@pytest.mark.parametrize("state", ["running", "available", "scheduled"])
def test_a_job_that_is_not_final_at_the_end_is_complained_about(state: str) -> None:
    assert (
        f"it is not final but {state}" in kinds(verdict((A, 1, 10.0, 11.0, "end"), state=state))[0]
    )


def test_an_acknowledged_job_is_gone_only_with_a_crash_of_the_server() -> None:
    def gone(*crashes: float) -> list[str]:
        evidence = Evidence(LEASE, {}, {}, list(crashes), [], WINDOW)
        return kinds(judge(evidence, [], [Enqueued(1, 7, "work", 5.0)], Counter()))

    assert gone() == gone(2.0) == gone(12.0) == ["an acknowledged job is gone"]
    assert gone(6.0) == []


@pytest.mark.parametrize(
    ("state", "effects", "right"),
    [
        ("succeeded", 1, True),
        ("succeeded", 2, False),
        ("succeeded", 0, False),
        ("failed", 1, False),
    ],
)
def test_an_effect_is_there_exactly_once_with_the_success(
    state: str, effects: int, right: bool
) -> None:
    seen = kinds(verdict((A, 1, 10.0, 11.0, "end"), task="pay", state=state, effects=effects))
    assert (f"it is {state} and has {effects} effects" not in seen) == right


def test_a_failure_needs_its_errors_or_an_interruption() -> None:
    run = (A, 1, 10.0, 11.0, "end")
    assert kinds(verdict(run, state="failed")) == ["it failed after 0 errors and losses"]
    assert kinds(verdict(run, task="once", state="failed")) == [
        "it was interrupted, and nothing explains it"
    ]
    killed = Life(A, 0, 1, killed=11.5)
    assert kinds(verdict(run, task="once", state="failed", a=killed)) == []


def test_a_job_that_is_taken_from_a_frozen_worker_is_not_left_behind_by_its_stop_soon_after() -> (
    None
):
    thawed = Life(A, 0, 1, stopped=[(14.0, 20.5)], terminated=21.0, exited=21.2, code=0)
    runs = (A, 1, 10.0, 20.6, "end"), (B, 3, 25.0, 26.0, "end")
    assert kinds(verdict(*runs, attempts=[LOST], a=thawed)) == []


def test_a_retry_whose_reason_the_server_lost_afterwards_is_a_retry() -> None:
    runs = (A, 1, 10.0, 11.0, "raised"), (A, 3, 12.0, 12.5, "end")
    released = [(1, A, "released", None, 14.0)]
    seen = verdict(*runs, attempts=released, crashes=[13.0])
    assert (kinds(seen), seen.causes) == ([], Counter({causes.RETRY: 1}))
    assert kinds(verdict(*runs, attempts=released)) == ["it ran again, and nothing explains it"]


def test_a_job_that_its_worker_gave_back_as_the_server_lost_the_claim_may_run_again() -> None:
    runs = (A, 1, 10.5, 11.5, "end"), (A, 3, 12.5, 13.0, "end")
    released = [(1, A, "released", None, 12.0)]
    seen = verdict(*runs, attempts=released, crashes=[10.6])
    assert (kinds(seen), seen.causes) == ([], Counter({causes.LOST: 1}))
    assert kinds(verdict(*runs, attempts=released)) == ["it ran again, and nothing explains it"]
