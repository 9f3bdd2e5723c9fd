"""`cancel`, `retry`, `delete`."""

import json

import pytest

from tests.cli.conftest import Cli
from tests.cli.test_streams import on_terminal

VERBS = ["cancel", "retry", "delete"]


def test_cancel_retry_and_delete_by_id(bare: Cli) -> None:
    id_ = bare.id("t")
    assert bare.ok("cancel", id_) == "cancelled 1 job\n"
    assert bare.json("show", id_)["state"] == "cancelled"
    assert bare.json("cancel", id_) == {"changed": 0, "refused": [], "unchanged": 1}
    assert bare.json("retry", id_) == {"changed": 1, "refused": []}
    assert bare.json("show", id_)["state"] == "available"
    assert bare.ok("delete", id_) == "deleted 1 job\n"
    assert "there is no such job" in bare.refused(1, "delete", id_)


def test_a_wrong_state_and_an_unknown_id_are_refused_while_the_others_are_done(
    cli_with_app: Cli,
) -> None:
    ended, waiting = cli_with_app.id("add", 1, 2), None
    cli_with_app.drain()
    waiting = cli_with_app.id("add", 1, 2)
    result = cli_with_app("cancel", ended, waiting, 99, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "changed": 1,
        "refused": [
            {
                "id": ended,
                "state": "succeeded",
                "reason": "it is succeeded and cannot be cancelled",
            },
            {"id": 99, "state": None, "reason": "there is no such job"},
        ],
    }
    assert json.loads(result.stderr)["error"]["field"] == "id"
    text = cli_with_app("cancel", ended, 99)
    assert text.stderr.count("error: ") == 2


def test_retry_of_a_failed_job_gives_a_fresh_budget(cli_with_app: Cli) -> None:
    id_ = cli_with_app.id("fail")
    cli_with_app.drain()
    cli_with_app.ok("retry", id_)
    job = cli_with_app.json("show", id_)
    assert (job["state"], job["attempt"], job["max_attempts"]) == ("available", 1, 2)


def test_retry_of_a_job_that_has_succeeded_is_asked_for_by_name(cli_with_app: Cli) -> None:
    done, failed = cli_with_app.id("add", 1, 2), cli_with_app.id("fail")
    cli_with_app.drain()
    error = cli_with_app.refused(1, "retry", done, failed)
    assert f"job {done}: it has succeeded" in error and "ask for that with --succeeded" in error
    assert cli_with_app.json("show", done)["state"] == "succeeded"
    assert cli_with_app.json("show", failed)["state"] == "available"
    assert cli_with_app.ok("retry", done, "--succeeded") == "retried 1 job\n"
    assert cli_with_app.json("show", done)["state"] == "available"


def test_a_bulk_retry_leaves_out_what_has_succeeded_and_says_how_many(cli_with_app: Cli) -> None:
    for n in range(3):
        cli_with_app.id("add", n, n)
    cli_with_app.id("fail")
    cli_with_app.drain()
    without = "without 3 that have succeeded (--succeeded)"
    message = cli_with_app.refused(2, "retry", "--all")
    assert "retry 1 job in " in message and without in message
    assert cli_with_app.ok("retry", "--all", "--yes") == f"retried 1 job, {without}\n"
    answer = {"changed": 0, "refused": [], "left_out": 3}
    assert cli_with_app.json("retry", "--task", "add", "--yes") == answer
    message = cli_with_app.refused(2, "retry", "--state", "succeeded", "--yes")
    assert "only retried with --succeeded" in message
    by_name = ["retry", "--state", "succeeded", "--succeeded", "--yes"]
    assert cli_with_app.json(*by_name) == {"changed": 3, "refused": []}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(("answer", "state"), [(b"y\n", "available"), (b"\n", "succeeded")])
def test_a_terminal_is_asked_whether_a_job_that_has_succeeded_runs_again(
    cli_with_app: Cli, answer: bytes, state: str
) -> None:
    done = cli_with_app.id("add", 1, 2)
    cli_with_app.drain()
    code, out = on_terminal(["retry", done], {"JOBQUEUE_URL": cli_with_app.url or ""}, send=answer)
    assert f"job {done} has succeeded; run it again? [y/N]" in out
    assert code == (state == "succeeded")
    assert cli_with_app.json("show", done)["state"] == state


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "words", [[], ["1", "--all"], ["1", "--task", "t"], ["--all", "--task", "t"], ["--yes"]]
)
def test_ids_a_filter_or_all_and_only_one_of_them(bare: Cli, verb: str, words: list[str]) -> None:
    bare.id("t")
    assert "one of the three" in bare.refused(2, verb, *words)
    assert bare.json("show", 1)["state"] == "available"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("words", [["--all"], ["--task", "t"]])
def test_bulk_off_a_terminal_needs_yes_and_names_the_count_and_the_database(
    bare: Cli, verb: str, words: list[str]
) -> None:
    bare.id("t", "--delay", "1h")
    message = bare.refused(2, verb, *words, input="y\n")
    assert f"{verb} 1 job" in message
    assert "://" in message
    assert "--yes" in message
    assert bare.json("show", 1)["state"] == "scheduled"


def test_bulk_with_yes_says_what_it_does_first_and_changes_only_what_matches(bare: Cli) -> None:
    for task in ("a", "a", "b"):
        bare.id(task, "--tag", task)
    result = bare("cancel", "--task", "a", "--yes")
    assert result.stdout == "cancelled 2 jobs\n"
    assert result.stderr.startswith("cancel 2 jobs (task a) in ")
    assert bare.json("retry", "--tag", "a", "--state", "cancelled", "--yes")["changed"] == 2
    assert bare.json("delete", "--all", "--yes") == {"changed": 3, "refused": []}
    assert bare.json("list") == []


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(
    ("verb", "state"),
    [("cancel", "succeeded"), ("retry", "running"), ("retry", "available"), ("delete", "running")],
)
def test_a_bulk_verb_that_never_applies_to_the_state_is_refused(
    bare: Cli, verb: str, state: str
) -> None:
    assert f"{state} jobs cannot be" in bare.refused(2, verb, "--state", state, "--yes")


def test_many_ids_at_once_are_taken_in_parts(bare: Cli) -> None:
    bare.json("enqueue", "--from", "-", input='{"task": "t"}\n' * 2500)
    answer = json.loads(bare("cancel", "--json", *range(1, 2600)).stdout)
    assert (answer["changed"], len(answer["refused"])) == (2500, 99)
