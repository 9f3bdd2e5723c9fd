"""The life of a job: every move leads from states to a state, and nowhere else."""

import pytest

from jobqueue.states import FINAL, LIVE, MOVES, WAITING, State

WORKERS = {"succeed", "retry", "fail", "snooze", "release", "reap"}


def test_the_states_are_those_of_the_contract() -> None:
    assert [state.value for state in State] == [
        *("scheduled", "available", "running"),
        *("succeeded", "failed", "cancelled"),
    ]


def test_every_state_is_either_live_or_final() -> None:
    assert set(LIVE) | set(FINAL) == set(State)
    assert set(LIVE) & set(FINAL) == set()
    assert set(WAITING) == set(LIVE) - {State.RUNNING}


@pytest.mark.parametrize("verb", MOVES)
def test_every_move_is_closed(verb: str) -> None:
    move = MOVES[verb]
    assert move.before
    assert len(set(move.before)) == len(move.before)
    assert {*move.before, move.after} <= set(State)


@pytest.mark.parametrize(
    "verb",
    [verb for verb in MOVES if verb not in {"cancel", "postpone"}],  # A later due time stays one.
)
def test_no_move_stays_where_it_is(verb: str) -> None:
    assert MOVES[verb].after not in MOVES[verb].before


def test_only_a_claim_leads_to_running() -> None:
    assert [verb for verb, move in MOVES.items() if move.after is State.RUNNING] == ["claim"]
    assert MOVES["claim"].before == (State.AVAILABLE,)


def test_only_a_worker_or_its_loss_ends_what_runs() -> None:
    out = {verb for verb, move in MOVES.items() if State.RUNNING in move.before}
    assert out == WORKERS | {"cancel"}
    assert all(MOVES[verb].before == (State.RUNNING,) for verb in WORKERS)


def test_only_an_operator_leads_out_of_a_final_state() -> None:
    assert {verb for verb, move in MOVES.items() if set(move.before) & set(FINAL)} == {"requeue"}


def test_every_state_is_reached_from_the_first_two_and_leads_on_to_a_final_one() -> None:
    def reach(states: set[State], backwards: bool) -> set[State]:
        while True:
            steps = {
                found
                for move in MOVES.values()
                for before in move.before
                for start, found in [(move.after, before) if backwards else (before, move.after)]
                if start in states
            }
            if steps <= states:
                return states
            states |= steps

    assert reach(set(WAITING), backwards=False) == set(State)
    for state in FINAL:
        assert reach({state}, backwards=True) >= set(LIVE)


def test_a_state_is_its_name() -> None:
    assert all(state == state.value == str(state) for state in State)
