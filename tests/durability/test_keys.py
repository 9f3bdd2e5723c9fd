"""A unique key has one holder, however many processes enqueue it, and whatever dies."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from one_key import MODES
from processes import ProcessScenario

from tests.process_factory import popen

PROGRAM = Path(__file__).with_name("one_key.py")


def enqueue(scenario: ProcessScenario, modes: Any, processes: int, calls: int) -> dict[str, Any]:
    words = [scenario.url, scenario.folder, ",".join(modes), processes, calls]
    command = [sys.executable, str(PROGRAM), *map(str, words)]
    with popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        told, errors = run.communicate(timeout=1000)
    assert run.returncode == 0, errors
    print(told)  # pytest -rP
    found = json.loads(told)
    assert found["calls"] == processes * calls * len(modes)
    nothing = ("errors", "two holders", "overlaps", "made twice", "begun before the call")
    assert [found[what] for what in nothing] == [[], [], 0, 0, 0]
    assert found["due too late"] == 0
    assert found["made"] == found["jobs"] == found["runs"] == found["states"]["succeeded"]
    return found


def test_processes_that_enqueue_the_same_keys_at_once_never_make_two_holders(
    scenario: ProcessScenario,
) -> None:
    found = enqueue(scenario, MODES, processes=4, calls=15)
    assert len(MODES) < found["jobs"] < found["calls"]  # Holders came and went.


@pytest.mark.timing  # For the time that it takes.
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", MODES)
def test_ten_thousand_enqueues_of_one_key_by_16_processes(
    scenario: ProcessScenario, mode: str
) -> None:
    enqueue(scenario, [mode], processes=16, calls=625)
