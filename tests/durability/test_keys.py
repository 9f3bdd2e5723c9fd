"""A unique key has one holder, however many processes enqueue it, and whatever dies."""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from one_key import MODES
from processes import ProcessScenario

from tests import process_factory

FOLDER = Path(__file__).parent


def run(program: str, scenario: ProcessScenario, *words: object) -> dict[str, Any]:
    given = map(str, (FOLDER / program, scenario.url, scenario.folder, *words))
    done = process_factory.run([sys.executable, *given], timeout=1000)
    assert done.returncode == 0, done.stderr
    print(done.stdout)  # pytest -rP
    return json.loads(done.stdout)


def enqueue(scenario: ProcessScenario, modes: Any, processes: int, calls: int) -> dict[str, Any]:
    found = run("one_key.py", scenario, ",".join(modes), processes, calls)
    assert found["calls"] == processes * calls * len(modes)
    nothing = ("errors", "two holders", "overlaps", "made twice", "begun before the call")
    assert [found[what] for what in nothing] == [[], [], 0, 0, 0]
    assert found["due too late"] == 0
    assert found["made"] == found["jobs"] == found["runs"] == found["states"]["succeeded"]
    return found


def test_processes_that_enqueue_the_same_keys_at_once_never_make_two_holders(
    scenario: ProcessScenario,
) -> None:
    found = enqueue(scenario, MODES, processes=4, calls=8)
    assert len(MODES) < found["jobs"] < found["calls"]  # Holders came and went.


@pytest.mark.timing  # For the time that it takes.
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", MODES)
def test_ten_thousand_enqueues_of_one_key_by_16_processes(
    scenario: ProcessScenario, mode: str
) -> None:
    enqueue(scenario, [mode], processes=16, calls=625)


# kill -9


def jobs_by_key(scenario: ProcessScenario) -> dict[str, list[Any]]:
    """In the order in which they were made."""
    found = defaultdict(list)
    for job in sorted(scenario.jobs.list(limit=None), key=lambda job: job.id):
        found[job.unique_key].append(job)
    return found


def test_a_worker_that_is_killed_while_it_ends_a_job_neither_loses_its_rerun_nor_makes_two(
    scenario: ProcessScenario,
) -> None:
    killed = run("dying_keys.py", scenario, "rerun")["killed"]
    assert killed >= 8  # Two transactions, each with its commit: before it and after it.
    runs = Counter(map(int, (scenario.folder / "runs").read_text().split()))
    found = jobs_by_key(scenario)
    assert sorted(map(int, found)) == list(range(killed + 2))
    for first, second in found.values():
        assert first.state == second.state == "succeeded"
        assert (runs[first.id], runs[second.id]) in ((1, 1), (2, 1))
        assert second.started_at >= first.finished_at
    assert max(runs.values()) == 2


def test_an_enqueuer_that_is_killed_leaves_at_most_one_debounced_job(
    scenario: ProcessScenario,
) -> None:
    killed = run("dying_keys.py", scenario, "debounce")["killed"]
    assert killed >= 8
    before = jobs_by_key(scenario)
    task = scenario.task("nop", debounce=300, max_wait=600)
    for key in map(str, range(killed + 2)):
        job = task.options(unique_key=key).enqueue()
        assert [job.id] == [job.id for job in before[key]] or (job.created and not before[key])
    for (job,) in jobs_by_key(scenario).values():
        assert (job.state, job.fence) == ("scheduled", 0)
        assert 200 < (job.run_at - job.created_at).total_seconds() <= 600
