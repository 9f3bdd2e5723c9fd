"""Fixtures for the files of deploy/."""

from functools import partial

import pytest

from tests.deploy.validators import Run, run_or_skip


@pytest.fixture
def validator(request: pytest.FixtureRequest) -> Run:
    """Runs a program of this machine that validates files; skips the test where there is none."""
    return partial(run_or_skip, request)
