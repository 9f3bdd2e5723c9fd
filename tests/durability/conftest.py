"""What all tests of real processes need, and the one repetition of those that a stall of the machine has spoilt."""

import pytest
from _pytest.runner import runtestprotocol
from processes import STALLED, scene  # noqa: F401 - scene is a fixture

from tests.conftest import RERUN


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "rerun_on_stall: it has workers that watch each other, or measures, and its processes must not stand still; "
        "if it fails, and a process of it logged that it did, it is run once more, which the closing lines count",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A reaper cannot tell a worker that the machine does not let run from one that is dead: neither can a test."""
    if item.get_closest_marker("rerun_on_stall") is None:
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if any(report.failed for report in reports) and item.stash.get(STALLED, False):
        item._initrequest()  # New fixtures: another database, other processes.
        item.user_properties.append((RERUN, item.nodeid))
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
