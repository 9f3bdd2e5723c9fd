"""Context variables: each job begins with those of the program, and none sees what another has set."""

import contextvars
import decimal
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from jobqueue.worker.handler.context_variables import ProgramContext

pytestmark = pytest.mark.databases("sqlite")

LONG = 60.0  # seconds, for what takes a second
PROGRAMS = ["nobody", "set by the program", "0.3333333"]
PLACES = ("in_a_thread", "on_the_loop", "in_a_child", "on_the_loop_of_a_child")


class Program:
    """A program with a context of its own, in which it imports its app and starts its worker."""

    def __init__(self) -> None:
        self.context = contextvars.copy_context()
        self.app: Any = self.context.run(importlib.import_module, "contexts_app")
        self.worker = self.app.jobs.worker(concurrency=1, poll=0.05)

    def __enter__(self) -> Any:
        self.context.run(self.worker.start)
        return self.app

    def __exit__(self, *_: object) -> None:
        self.worker.stop()


@pytest.fixture
def program(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    monkeypatch.setenv("CONTEXTS_URL", url)
    monkeypatch.delitem(sys.modules, "contexts_app", raising=False)
    program = Program()
    yield program
    program.app.jobs.close()


@pytest.mark.parametrize("place", PLACES)
def test_each_job_sees_what_the_program_has_set_and_nothing_of_the_one_before(
    program: Program, place: str
) -> None:
    with program as app:
        task = app.jobs.registry[place]
        for job in app.jobs.enqueue_many([task.call() for _ in range(3)]):
            assert job.result(LONG) == [*PROGRAMS, "0.333"]
        if "child" not in place:
            assert app.SEEN == ["nobody"] * 3


def test_a_program_that_changed_no_decimals_costs_its_jobs_none_and_they_share_none() -> None:
    """Importing a driver is enough to have such a context, which can be changed in place."""

    def made() -> ProgramContext:
        decimal.setcontext(decimal.Context())
        return ProgramContext()

    program_context = contextvars.Context().run(made)
    assert program_context._decimals == []
    program_context.copy().run(lambda: setattr(decimal.getcontext(), "prec", 3))
    assert program_context.copy().run(decimal.getcontext).prec == decimal.DefaultContext.prec


def test_the_program_sees_nothing_of_its_jobs(program: Program) -> None:
    with program as app:
        app.in_a_thread.enqueue().result(LONG)
        app.on_the_loop.enqueue().result(LONG)
    assert program.context.run(app.OF_PROGRAM.get) == "set by the program"
    assert program.context.run(decimal.getcontext).prec == 7


@pytest.mark.parametrize("name", ["family", "family_of_a_child"])
def test_tasks_and_threads_that_a_coroutine_starts_know_the_job(
    program: Program, name: str
) -> None:
    with program as app:
        job = app.jobs.registry[name].enqueue()
        assert job.result(LONG) == [job.id] * 3
