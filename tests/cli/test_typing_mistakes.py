"""Typing mistakes in names: said with the nearest name, and nothing is changed."""

from collections.abc import Callable

import pytest

from tests.cli.conftest import Cli

APP = """
from jobqueue import JobQueue

jobs = JobQueue()
jobs.queue("thumbs", max_pending=9)

@jobs.task(queue="sync", tags=("nightly",))
def sync_crm() -> None: ...
"""


@pytest.fixture(params=["sqlite"])
def backend_name(request: pytest.FixtureRequest) -> str:
    """What is asked of a database here is what `names_in_use` asks, which has a test on both."""
    return request.param


def switches(it: Cli) -> set[str]:
    return {row["queue"] for row in it.json("queues") if row["paused"]}


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_queue_that_nobody_knows_is_not_switched(it: Cli, verb: str) -> None:
    it.ok("queues", "pause", "thumbs")
    message = it.refused(2, "queues", verb, "sync", "synk", "thumbs")
    assert message.startswith("error: queue: 'synk' is not known; did you mean sync?")
    assert "--force" in message
    assert switches(it) == {"thumbs"}
    assert "known are default, sync, thumbs" in it.refused(2, "queues", verb, "zzz")
    it.ok("queues", verb, "synk", "--force")
    it.ok("queues", verb, "default", "sync", "thumbs")
    assert ("synk" in switches(it)) is (verb == "pause")


@pytest.mark.parametrize("kind", ["task", "tag"])
def test_a_task_or_tag_that_nobody_knows_is_not_paused(it: Cli, kind: str) -> None:
    name = {"task": "sync_crm", "tag": "nightly"}[kind]
    message = it.refused(2, "pause", f"--{kind}", name, f"--{kind}", name + "s")
    assert message.startswith(f"error: {kind}: '{name}s' is not known; did you mean {name}?")
    assert "--force" in message
    assert it.json("stats")["pauses"] == []
    done = it.ok("pause", f"--{kind}", name, f"--{kind}", "zzz", "--force")
    assert done == f"{kind} {name} paused\n{kind} zzz paused\n"
    assert it.ok("pause", f"--{kind}", "zzz") == f"{kind} zzz paused already\n"
    tag, task = ["zzz"] * (kind == "tag"), ["zzz"] * (kind == "task")
    switched = {"changed": 1, "tasks": task, "tags": tag}
    assert it.json("resume", f"--{kind}", "zzz") == switched
    assert [row["name"] for row in it.json("stats")["pauses"]] == [name]
    assert f"{kind} {name} paused" in it.ok("stats")
    paused = {row["task"] for row in it.json("tasks") if row["paused"]}
    assert paused == ({name} if kind == "task" else set())


def test_a_queue_of_the_app_is_switched_where_no_job_has_been_yet(
    offline: Cli, make_app: Callable[..., str]
) -> None:
    offline.app = make_app(APP)
    assert offline.ok("queues", "pause", "sync", "--url", "sqlite:///new.db") == "sync paused\n"


def test_a_queue_is_known_as_soon_as_a_job_is_in_it(bare: Cli) -> None:
    bare.refused(2, "queues", "pause", "mail")
    bare.id("t", "--queue", "mail")
    assert bare.ok("queues", "pause", "mail") == "mail paused\n"


def test_a_job_for_a_new_queue_is_enqueued_and_a_nearly_equal_name_is_told(it: Cli) -> None:
    told = it("enqueue", "sync_crm", "--queue", "synk")
    assert (told.exit_code, told.stdout) == (0, "1\n")
    assert told.stderr == "the queue 'synk' is new; did you mean sync?\n"
    for queue in ("synk", "sync", "zzz"):  # Known by now; of the app; like no other.
        assert it("enqueue", "sync_crm", "--queue", queue).stderr == ""


@pytest.mark.parametrize(
    ("verb", "option", "typo", "meant"),
    [
        ("cancel", "task", "sync_cmr", "sync_crm"),
        ("retry", "queue", "synk", "sync"),
        ("delete", "tag", "nightli", "nightly"),
    ],
)
def test_a_bulk_verb_refuses_a_name_that_nobody_knows(
    it: Cli, verb: str, option: str, typo: str, meant: str
) -> None:
    message = it.refused(2, verb, f"--{option}", typo, "--yes")
    assert message.startswith(f"error: {option}: '{typo}' is not known; did you mean {meant}?")
    assert it.json(verb, f"--{option}", meant, "--yes")["changed"] == 0
    assert it.json(verb, f"--{option}", typo, "--yes", "--force")["changed"] == 0


def test_a_name_that_a_job_has_is_known(bare: Cli) -> None:
    bare.id("t", "--queue", "q", "--tag", "x")
    for words in (["--task", "t"], ["--queue", "q"], ["--tag", "x"]):
        assert bare.json("retry", *words, "--yes")["changed"] == 0
    assert bare.json("cancel", "--task", "t", "--queue", "q", "--tag", "x", "--yes")["changed"] == 1


def test_a_name_that_the_database_knows_needs_no_app(it: Cli) -> None:
    it.id("sync_crm", "--queue", "mail")
    it.app = "no_such:app"
    assert it.ok("queues", "pause", "mail") == "mail paused\n"
    mistyped = it("list", "--queue", "mial")
    assert (mistyped.exit_code, mistyped.stdout) == (0, "")
    assert "there is no module 'no_such'" in mistyped.stderr
    assert "did you mean mail?" in mistyped.stderr
    assert "did you mean mail?" in it.refused(2, "queues", "resume", "mial")


@pytest.mark.parametrize(
    ("option", "typo"), [("task", "sync_cmr"), ("queue", "synk"), ("tag", "nightli")]
)
def test_a_list_that_is_empty_for_a_typing_mistake_says_so_and_exits_with_0(
    it: Cli, option: str, typo: str
) -> None:
    shown, as_json = it("list", f"--{option}", typo), it("list", f"--{option}", typo, "--json")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert (as_json.exit_code, as_json.stdout) == (0, "[]\n")
    assert shown.stderr == as_json.stderr
    assert shown.stderr.startswith(f"no jobs match; {option}: '{typo}' is not known; did you mean ")
    assert shown.stderr.count("\n") == 1
    assert it("list", "--queue", "sync", "--json").stderr == ""


def test_a_worker_warns_of_a_queue_that_nobody_knows_and_serves_it(
    it: Cli,
) -> None:
    id_ = it.id("sync_crm", "--queue", "mail")
    result = it("worker", "--drain", "-q", "synk,mail:x,mail:2,thumbs,default")
    assert result.exit_code == 0
    warnings = [line for line in result.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == 2, result.stderr
    assert "'synk' is not known; did you mean sync?" in warnings[0]
    assert "'mail:x' is not known; did you mean mail?" in warnings[1]
    assert "a limit is a number, as in mail:2" in warnings[1]
    assert it.json("show", id_)["state"] == "succeeded"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("list 5", "Got unexpected extra argument (5); for one job: jobqueue show ID"),
        ("worker a:b", "extra argument (a:b); the app is named by --app, as --app app:jobs"),
        ("exec ls -l", "No such option '-l'; write the command after --"),
        ("exec ls --expirse 5", "'--expirse'. Did you mean '--expires'?"),
        ("pause mail", "extra argument (mail); for a queue: jobqueue queues pause NAME"),
        ("resume --queue mail", "'--queue'; for a queue: jobqueue queues resume NAME"),
    ],
)
def test_words_that_a_command_does_not_take_are_answered_with_what_does(
    bare: Cli, words: str, said: str
) -> None:
    command = f"jobqueue {words.split()[0]}"
    assert bare.refused(2, *words.split()).endswith(f"{said}; see {command} --help")
