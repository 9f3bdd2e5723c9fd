"""`errors`, and the verbs with `--error`: what fails, grouped, and run again as a group."""

from tests.cli.conftest import Cli


def test_errors_are_listed_and_the_jobs_of_one_are_retried(cli_with_app: Cli) -> None:
    it = cli_with_app
    assert it("errors").stderr == "no errors in the last 7d\n"
    first, second = it.id("fail", "one"), it.id("fail", "two\x1b[31m")
    other, well = it.id("optional", "--timeout", "1"), it.id("add", 1, 2)
    it.drain()
    (group,) = it.json("errors", "--since", "1h", "--task", "fail")
    assert group["attempts"] == {"1h": 2, "24h": 2, "7d": 2}
    assert (group["task"], group["type"], group["failed"]) == ("fail", "ValueError", 2)
    assert group["signature"] == f"fail ValueError {group['place']}"
    assert group["place"].endswith(".py:fail")
    assert it.json("errors", "--since", "1h") == [group]

    shown = it.ok("errors")
    assert group["id"] in shown and "ValueError" in shown and "\x1b" not in shown

    beginning = group["id"][:6]
    listed = it.json("list", "--error", beginning)
    assert [job["id"] for job in listed] == [second, first]
    assert it.json("retry", "--error", beginning, "--dry-run")["would_change"] == 2
    said = it("retry", "--error", beginning, "--yes")
    assert said.stdout == "retried 2 jobs\n"
    assert said.stderr.startswith(f"retry 2 jobs (error {group['signature']}) in ")
    (action,) = it.json("log")
    assert (action["target"], action["changed"]) == ({"error": group["signature"]}, 2)
    assert it.json("cancel", "--error", group["id"], "--yes") == {"changed": 2, "refused": []}
    assert it.json("delete", "--error", group["id"], "--yes")["changed"] == 2
    assert {job["id"] for job in it.json("list")} == {other, well}
    assert it.json("errors")[0]["failed"] == 2  # Counted, whatever became of the rows.


def test_an_unknown_error_or_task_is_said_and_changes_nothing(bare: Cli) -> None:
    bare.id("add")
    for verb in ("retry", "cancel", "delete"):
        said = bare.refused(2, verb, "--error", "0123456789ab", "--yes")
        assert said.startswith("error: no error is known with the id 0123456789ab")
    assert "is not the id of an error" in bare.refused(2, "list", "--error", "ValueError")
    assert "since" in bare.refused(2, "errors", "--since", "2h")
    assert "limit" in bare.refused(2, "errors", "--limit", "-1")
    said = bare("errors", "--task", "ad").stderr
    assert said == "no errors; task: 'ad' is not known; did you mean add?\n"
    assert bare.json("errors") == []
