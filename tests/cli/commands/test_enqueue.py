"""`enqueue`: what is written on the command line becomes a job."""

import json
from typing import Any

import pytest

from jobqueue.errors import JobNotFound
from jobqueue.job import Job
from jobqueue.records import JobRecord
from tests.cli.conftest import Cli


def test_enqueue_prints_the_id_and_a_worker_runs_the_job(cli_with_app: Cli) -> None:
    id_ = cli_with_app.id("add", 2, 3)
    cli_with_app.drain()
    job = cli_with_app.json("show", id_)
    assert (job["state"], job["result"], job["args"], job["kwargs"]) == ("succeeded", 5, [2, 3], {})


VALUES = [
    (["5"], [5], {}),
    (["-5", "-1.5", "-.5"], [-5, -1.5, "-.5"], {}),
    (["text", "two words", ""], ["text", "two words", ""], {}),
    (
        ['"5"', "null", "true", "[1, {}]", '{"a": null}'],
        ["5", None, True, [1, {}], {"a": None}],
        {},
    ),
    (["x=5", "y=-2", "z=a=b"], [], {"x": 5, "y": -2, "z": "a=b"}),
    (["http://a/?b=c", "1x=2", "=3", "a b=c"], ["http://a/?b=c", "1x=2", "=3", "a b=c"], {}),
    (["ключ=1", "x="], [], {"ключ": 1, "x": ""}),
    (["NaN", "Infinity", "1e", "01", "-"], ["NaN", "Infinity", "1e", "01", "-"], {}),
    (["--", "--not-an-option", "-x"], ["--not-an-option", "-x"], {}),
    (["9223372036854775807"], [2**63 - 1], {}),
    (["--args", "[1, [2]]", "--kwargs", '{"a": {"b": 1}}'], [1, [2]], {"a": {"b": 1}}),
    (["--args", "[1]", "x=2"], [1], {"x": 2}),
    (["1", "--kwargs", '{"x": "2"}'], [1], {"x": "2"}),
]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(("words", "args", "kwargs"), VALUES, ids=[str(v[0]) for v in VALUES])
def test_without_an_app_a_value_is_json_where_it_is_json_and_otherwise_text(
    bare: Cli, words: list[str], args: list[object], kwargs: dict[str, object]
) -> None:
    job = bare.json("enqueue", "anything.at:all", *words)
    assert (job["args"], job["kwargs"]) == (args, kwargs)


ANNOTATED = [
    ("echo", ["5"], ["5"], {}),
    ("echo", ["text=5"], [], {"text": "5"}),
    ("echo", ["null"], ["null"], {}),
    ("echo", ['"quoted"'], ["quoted"], {}),
    ("echo", ["1" * 400], ["1" * 400], {}),
    ("echo", ["[1, 2]"], ["[1, 2]"], {}),
    ("add", ["5", "-6"], [5, -6], {}),
    ("optional", ["5", "6"], [5, "6"], {}),
    ("optional", ["five", "null"], ["five", None], {}),
    ("at", ["2026-12-24T18:00:00+01:00"], ["2026-12-24T18:00:00+01:00"], {}),
    ("keep", ["5", "x", "a=5"], [5, "x"], {"a": 5}),
]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("task", "words", "args", "kwargs"), ANNOTATED, ids=[str(v[:2]) for v in ANNOTATED]
)
def test_with_an_app_the_annotations_decide(
    cli_with_app: Cli, task: str, words: list[str], args: list[object], kwargs: dict[str, object]
) -> None:
    job = cli_with_app.json("enqueue", task, *words)
    assert (job["args"], job["kwargs"]) == (args, kwargs)


def test_every_option_reaches_the_job(bare: Cli) -> None:
    job = bare.json(
        *("enqueue", "t", "--queue", "q", "--priority", "-7", "--delay", "1h"),
        *(
            "--max-attempts",
            3,
            "--timeout",
            "5m",
            "--unique-key",
            "k ü",
            "--tag",
            "a",
            "--tag",
            "b",
        ),
    )
    assert job["created"] is True
    wanted = {
        "queue": "q",
        "priority": -7,
        "state": "scheduled",
        "max_attempts": 3,
        "timeout": 300.0,
        "unique_key": "k ü",
        "tags": ["a", "b"],
    }
    assert {key: job[key] for key in wanted} == wanted


def test_options_of_the_task_hold_unless_others_are_given(cli_with_app: Cli) -> None:
    job = cli_with_app.json("enqueue", "mail", "a@b.c", "--priority", 1)
    assert (job["queue"], job["priority"], job["max_attempts"]) == ("mail", 1, 7)


def test_at_is_an_instant_with_a_zone(bare: Cli) -> None:
    job = bare.json("enqueue", "t", "--at", "2036-12-24T18:00+01:00")
    assert (job["state"], job["run_at"]) == ("scheduled", "2036-12-24T17:00:00+00:00")


def test_a_unique_key_gives_the_job_that_is_there_and_exits_with_0(bare: Cli) -> None:
    first = bare.id("t", "--unique-key", "k")
    again = bare("enqueue", "t", "--unique-key", "k")
    assert (again.exit_code, again.stdout) == (0, f"{first}\n")
    assert "was there" in again.stderr
    assert bare.json("enqueue", "t", "--unique-key", "k")["created"] is False


def test_who_enqueues_hears_what_became_of_the_job_that_holds_the_key(bare: Cli) -> None:
    def said(*words: object) -> str:
        return bare("enqueue", "t", *words, "--unique-key", "k").stderr

    id_ = bare.id("t", 1, "--unique-key", "k", "--delay", "1h")
    there = f"job {id_} with that unique key was there"
    assert f"{there}; no new one was made\n" in said(1)
    held = f"unique key 'k' is held by job {id_}, which is another task or has other arguments"
    assert held in said(2) and there not in said(2)
    assert f"{there}, and was replaced\n" in said(2, "--on-conflict", "replace")
    assert f"{there}; it is due in 3h\n" in said(
        *(2, "--on-conflict", "reschedule", "--delay", "3h")
    )
    assert f"{there}; it is due in 2h\n" in said(2, "--debounce", "2h")
    other = f"{held}; no job of t was made\n{there}; it is due in 2h\n"
    assert said(3, "--debounce", "2h") == said(3, "--on-conflict", "reschedule", "--delay", "2h")
    assert said(3, "--debounce", "2h") == other
    assert held in bare("enqueue", "t", 3, "--unique-key", "k", "--debounce", 9, "--json").stderr
    job = bare.json("show", id_)
    assert (job["args"], len(bare.json("list"))) == ([2], 1)
    assert f"{there}; no new one was made, and it keeps its arguments\n" in said(3, "--rerun")
    bare.ok("cancel", id_)
    bare.id("t", 4, "--unique-key", "d", "--unique-until", "deleted")
    bare.ok("cancel", "--all", "--yes")
    ended = bare("enqueue", "t", 5, "--unique-key", "d", "--on-conflict", "replace").stderr
    assert (
        "with that unique key was there; its state is cancelled, and it stays as it is\n" in ended
    )


def test_of_a_holder_that_cannot_be_read_the_log_says_that_it_is_another_call(
    bare: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(job: Job[Any]) -> JobRecord:
        raise JobNotFound(f"there is no job {job.id}")

    key = ("--unique-key", "k", "--debounce", "1h")
    bare.id("t", 1, *key)
    monkeypatch.setattr(Job, "record", gone)
    assert "which is another task or has other arguments" in bare("enqueue", "t", 2, *key).stderr
    same = bare("enqueue", "t", 1, *key).stderr
    assert same == "job 1 with that unique key was there; no new one was made\n"


def test_a_job_that_was_replaced_and_has_begun_since_is_not_said_to_stay_as_it_was(
    cli_with_app: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Job.record

    def after_a_worker(job: Job[Any]) -> JobRecord:
        cli_with_app.drain()
        return read(job)

    first = cli_with_app.id("add", 1, 2, "--unique-key", "k", "--delay", "1h")
    monkeypatch.setattr(Job, "record", after_a_worker)
    again = cli_with_app("enqueue", "add", 3, 4, "--unique-key", "k", "--on-conflict", "replace")
    assert f"job {first} with that unique key was there; its state is succeeded\n" in again.stderr
    assert cli_with_app.json("show", first)["result"] == 7


def test_unique_until_deleted_holds_the_key_after_the_end(cli_with_app: Cli) -> None:
    options = ("add", 1, 2, "--unique-key", "k", "--unique-until", "deleted")
    first = cli_with_app.id(*options)
    cli_with_app.drain()
    assert cli_with_app.id(*options) == first


def test_the_app_refuses_a_name_that_it_does_not_have(cli_with_app: Cli) -> None:
    message = cli_with_app.refused(2, "enqueue", "ad", 1, 2)
    assert "no task is named 'ad'; did you mean add" in message
    assert cli_with_app.json("list") == []


BAD = [
    (["add", "2", "x"], "y: expected int, got str (got 'x')"),
    (["add", "2"], "missing a required argument: 'y'"),
    (["add", "1", "2", "3"], "too many positional arguments"),
    (["add", "1", "2", "z=3"], "unexpected keyword argument 'z'"),
    (["add", "1", "--args", "[1]"], "--args: give it or VALUE, not both"),
    (["add", "x=1", "--kwargs", "{}"], "--kwargs: give it or KEY=VALUE, not both"),
    (["add", "x=1", "x=2"], "x: given twice"),
    (["add", "1", "2", "--header", "a=1", "--header", "a=2"], "header: 'a' is given twice"),
    (["add", "--args", "[1, 2.5]"], "y: expected int"),
    (["add", "--args", '["1", 2]'], "x: expected int"),
]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(("words", "message"), BAD, ids=[str(v[0]) for v in BAD])
def test_arguments_that_do_not_fit_the_task_are_refused(
    cli_with_app: Cli, words: list[str], message: str
) -> None:
    assert message in cli_with_app.refused(2, "enqueue", *words)
    assert cli_with_app.json("list") == []


def test_wait_prints_the_result_and_exits_by_how_the_job_ended(cli_with_app: Cli, spawn) -> None:
    env = {"JOBQUEUE_URL": cli_with_app.url, "JOBQUEUE_APP": cli_with_app.app}
    worker = spawn("worker", "--max-jobs", 3, env=env)
    good = cli_with_app("enqueue", "add", 2, 3, "--wait", "--wait-timeout", 20)
    assert good.exit_code == 0
    assert good.stdout.split() == ["1", "1", "succeeded", "5"]
    bad = cli_with_app("enqueue", "fail", "--wait", "--wait-timeout", 20)
    assert bad.exit_code == 1
    assert bad.stderr.endswith(
        "error: job 2 (fail) failed: ValueError: it broke; see: jobqueue show 2\n"
    )
    job = cli_with_app.json("enqueue", "add", 2, 3, "--wait", "--wait-timeout", 20)
    assert (job["state"], job["result"], job["created"]) == ("succeeded", 5, True)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["succeeded"]
    assert worker.end()[0] == 0


def test_wait_timeout_leaves_the_job_and_says_how_to_go_on(bare: Cli) -> None:
    message = bare.refused(1, "enqueue", "t", "--wait", "--wait-timeout", "0.05")
    assert "enqueued, but not ended within 50ms: job 1" in message
    assert "jobqueue wait 1" in message
    assert bare.json("show", 1)["state"] == "available"


def test_the_answer_is_one_json_document_everywhere(bare: Cli) -> None:
    job = json.loads(bare.ok("enqueue", "t", "--json"))
    shown = bare.json("show", job["id"])
    assert shown == {key: job[key] for key in shown if key != "attempts"} | {"attempts": []}
    keys = (
        "id task queue state priority args kwargs tags attempt max_attempts run_at created_at "
        "started_at finished_at worker unique_key fence timeout progress result error created"
    ).split()
    assert [key for key in keys if key not in job] == []
