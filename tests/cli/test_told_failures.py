"""An application sets up logging as it likes: that a job failed is told all the same, and once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Process, Spawn

APP = """
import logging, logging.config
from jobqueue import JobQueue, current_job

def configure(loggers={{}}, **settings):
    logging.config.dictConfig({{
        "version": 1,
        "handlers": {{"h": {{"class": "logging.StreamHandler"}}}},
        "root": {{"handlers": ["h"], "level": "INFO"}},
        "loggers": loggers,
        **settings,
    }})

{at_import}
jobs = JobQueue()

@jobs.task(max_attempts=1)
def fail() -> None:
    {in_handler}
    current_job().log.warning("said by the job")
    logging.getLogger("myapp").warning("said by the application")
    raise ValueError("the-cause")
"""
LATE = "import logging, logging.config\nlogging.config.fileConfig('logging.ini')\n"
INI = """
[loggers]
keys=root
[handlers]
keys=h
[formatters]
keys=f
[logger_root]
level=INFO
handlers=h
[handler_h]
class=StreamHandler
args=(sys.stderr,)
formatter=f
[formatter_f]
format=%(levelname)s %(name)s %(message)s
"""
SETUPS = {
    "none": ("", "pass"),
    "basicConfig": ("logging.basicConfig(level=logging.INFO)", "pass"),
    "dictConfig": ("configure()", "pass"),
    "dictConfig that keeps loggers": ("configure(disable_existing_loggers=False)", "pass"),
    "dictConfig in a handler": ("", "configure()"),
    "fileConfig": ("logging.config.fileConfig('logging.ini')", "pass"),
    "fileConfig in a later import": ("import late", "pass"),
    "fileConfig in a handler": ("", "import late"),
    "a handler of its own for jobqueue": (
        "configure({'jobqueue': {'handlers': ['h'], 'level': 'WARNING', 'propagate': False}})",
        "pass",
    ),
}


@pytest.fixture
def stderr_of(
    url: str, make_app: Any, spawn: Spawn, tmp_path: Path
) -> Callable[[str, str], list[str]]:
    """Runs one failing job in a worker whose app sets up logging so; returns the worker's lines."""

    def stderr_of(at_import: str, in_handler: str) -> list[str]:
        (tmp_path / "late.py").write_text(LATE)
        (tmp_path / "logging.ini").write_text(INI)
        Cli(url).id(
            "fail", "--max-attempts", 1
        )  # Without the app, which would set up logging here.
        app = make_app(APP.format(at_import=at_import, in_handler=in_handler))
        env = {"JOBQUEUE_URL": url, "JOBQUEUE_APP": app}
        code, _, err = spawn("worker", "--drain", env=env).end(60)
        assert code == 0, err
        return err.splitlines()

    return stderr_of


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.databases("sqlite")
def test_a_failure_is_told_once_however_the_app_sets_up_logging(stderr_of: Any, setup: str) -> None:
    lines = stderr_of(*SETUPS[setup])
    assert sum("failed" in line and "the-cause" in line for line in lines) == 1, lines
    assert sum("said by the job" in line for line in lines) == 1, lines
    assert sum("said by the application" in line for line in lines) == 1, lines


@pytest.mark.databases("sqlite")
def test_a_level_that_the_app_gives_our_loggers_holds(stderr_of: Any) -> None:
    lines = stderr_of("configure({'jobqueue': {'level': 'CRITICAL'}})", "pass")
    assert lines == ["said by the application"]
