"""One job for each tick, whatever dies, and whatever the clock does."""

import json
import sys
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from processes import ProcessScenario
from test_clock_steps import fake_the_databases_clock

from tests import process_factory

TICKING = Path(__file__).with_name("ticking.py")


def run(scenario: ProcessScenario, *words: object) -> dict[str, Any]:
    command = [sys.executable, str(TICKING), scenario.url, *map(str, words)]
    done = process_factory.run(command)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def instants(scenario: ProcessScenario) -> list[Any]:
    """For which instants there are jobs; each once, and none left out between the first and the last."""
    made = sorted(job.scheduled_for for job in scenario.jobs.list(limit=None))
    assert {later - before for before, later in pairwise(made)} <= {timedelta(minutes=10)}
    assert made[-1] == scenario.jobs.schedules.get("report").nominal_at
    return made


def missed(scenario: ProcessScenario, done: dict[str, Any]) -> list[Any]:
    """Those of the ticks that were due at the beginning: the next one may have come since."""
    following = datetime.fromisoformat(done["following"])
    return [instant for instant in instants(scenario) if instant < following]


def test_a_process_that_is_killed_at_any_step_of_a_tick_has_made_its_job_or_not(
    scenario: ProcessScenario,
) -> None:
    done = run(scenario, "steps", 20)
    assert 6 <= done["killed"] <= 20  # Each statement, and the commit: before and after it.
    assert len(missed(scenario, done)) == 20


def test_five_processes_of_which_one_is_killed_all_the_time_make_a_job_for_each_tick(
    scenario: ProcessScenario,
) -> None:
    done = run(scenario, "many", 100)
    assert done["killed"] >= 1
    assert len(missed(scenario, done)) == 100


@pytest.mark.timing  # For the time that it takes.
def test_a_thousand_ticks(scenario: ProcessScenario) -> None:
    done = run(scenario, "many", 1000)
    assert done["killed"] >= 10
    assert len(missed(scenario, done)) == 1000


def test_a_step_of_the_clock_repeats_no_tick_and_loses_none(scenario: ProcessScenario) -> None:
    if not scenario.on_sqlite:
        fake_the_databases_clock(scenario)
    made = run(scenario, "clock", scenario.folder / "clock")["made"]
    start, *rest = made
    assert start in (0, 1)
    ahead, back, present, further, *same = (count - start for count in rest)
    assert ahead == back == present and ahead in (6, 7)
    assert further == ahead + 6 and set(same) == {further}
    assert len(instants(scenario)) == made[-1]
