"""`enqueue --from`: JSON lines in bulk."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


def lines(*jobs: dict[str, object]) -> str:
    return "".join(json.dumps(job) + "\n" for job in jobs)


def test_lines_from_stdin_become_jobs_in_their_order(bare: Cli) -> None:
    text = lines(
        {"task": "a", "args": [1, {"x": None}], "kwargs": {"y": 2}, "queue": "q", "priority": -3},
        {"task": "b", "delay": "1h", "max_attempts": 2, "timeout": 1.5, "tags": ["t"]},
        {"task": "c", "unique_key": "k", "unique_until": "deleted", "at": "2036-01-01T00:00Z"},
        {"task": "c", "unique_key": "k"},
    )
    answer = bare.json("enqueue", "--from", "-", input=text)
    assert (answer["enqueued"], answer["existing"]) == (3, 1)
    first, second, third, fourth = answer["ids"]
    assert third == fourth
    assert first < second < third
    job = bare.json("show", first)
    assert (job["args"], job["kwargs"], job["priority"]) == ([1, {"x": None}], {"y": 2}, -3)
    assert bare.json("show", second)["state"] == "scheduled"
    assert bare.json("show", third)["run_at"] == "2036-01-01T00:00:00+00:00"


def test_a_file_may_have_a_bom_empty_lines_other_line_ends_and_no_last_one(
    bare: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"task": "a"}\r\n\r\n  \n{"task": "b"}')
    assert bare.ok("enqueue", "--from", file) == "enqueued 2 jobs: ids 1 to 2\n"


def test_an_empty_file_enqueues_nothing(bare: Cli) -> None:
    assert bare.json("enqueue", "--from", "-", input="") == {
        "enqueued": 0,
        "existing": 0,
        "ids": [],
    }


BAD_LINES = [
    ('{"task": "a"', "not valid JSON"),
    ('{"task": "a", "args": [NaN]}', "NaN is not JSON"),
    ('{"task": "a", "args": [1e999]}', "number out of range"),
    ('{"task": "a", "args": ["\\u0000"]}', "NUL characters cannot be stored"),
    ('{"task": "a", "args": ["\\ud800"]}', "lone surrogate"),
    ('{"task": "a", "task": "b"}', "duplicate key 'task'"),
    ('{"task": "a", "args": {}}', "args: must be a list"),
    ('{"task": "a", "kwargs": []}', "kwargs: must be an object"),
    ('{"task": "a", "priorty": 1}', "did you mean priority?"),
    ('{"task": "a", "priority": "1"}', "priority: '1' is not a whole number"),
    ('{"task": "a b"}', "is not a name"),
    ('{"task": "a", "debounce": 5}', "debounce: it needs a unique_key"),
    ('{"task": "a", "headers": {"b": 1}}', "headers: the value of 'b' is an int, not text"),
    ('{"task": "a", "header": {"b": "1"}}', "did you mean headers?"),
    ('{"args": []}', 'names no "task"'),
    ("[1]", "must be an object"),
    ('{"task": "a", "args": ' + "[" * 70 + "]" * 70 + "}", "nested deeper than 64"),
    ('{"task": "a", "args": ["' + "x" * (1 << 20) + '"]}', "at most 1,048,576 are kept"),
    ("x" * (2 << 20), "longer than 1,114,112 bytes"),
]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=[line[:40] for line, _ in BAD_LINES])
def test_a_bad_line_is_named_and_nothing_of_its_batch_is_there(
    bare: Cli, line: str, message: str
) -> None:
    said = bare.refused(2, "enqueue", "--from", "-", input=f'{{"task": "a"}}\n{line}\n')
    assert "error: line 2: " in said
    assert said.count("line 2") == 1
    assert message in said
    assert said.endswith("nothing was enqueued")
    assert bare.json("list") == []


def test_depth_64_of_arguments_is_taken(bare: Cli) -> None:
    deep = "[" * 63 + "]" * 63
    text = f'{{"task": "a", "args": [{deep}]}}\n'
    assert bare.json("enqueue", "--from", "-", input=text)["enqueued"] == 1


def test_bytes_that_are_not_utf_8_are_named_with_their_offset(bare: Cli) -> None:
    for text in (b'{"task": "\xff"}', '{"task": "a"}'.encode("utf-16")):
        said = bare.refused(2, "enqueue", "--from", "-", input=text)
        assert "line 1: invalid UTF-8 at byte offset" in said


def test_batches_before_the_bad_line_stay_and_the_error_says_so(bare: Cli) -> None:
    text = lines(*[{"task": "a"}] * 1500) + "nonsense\n"
    said = bare.refused(1, "enqueue", "--from", "-", input=text)
    assert "line 1501: not valid JSON" in said
    assert "lines 1 to 1000 were enqueued, nothing after them" in said
    assert len(bare.json("list", "--limit", 0)) == 1000


def test_the_app_checks_every_line(cli_with_app: Cli) -> None:
    text = lines({"task": "add", "args": [1, 2]}, {"task": "add", "args": [1, "2"]})
    said = cli_with_app.refused(2, "enqueue", "--from", "-", input=text)
    assert "line 2: add: y: expected int" in said
    assert cli_with_app.json("list") == []
    text = lines({"task": "mail", "args": ["x"]})
    (id_,) = cli_with_app.json("enqueue", "--from", "-", input=text)["ids"]
    assert cli_with_app.json("show", id_)["queue"] == "mail"


@pytest.mark.parametrize("more", [["t"], ["--queue", "q"], ["--wait"], ["--args", "[]"]])
def test_from_takes_nothing_beside_it(offline: Cli, more: list[str]) -> None:
    assert "leave out" in offline.refused(2, "enqueue", "--from", "-", *more)


@pytest.mark.parametrize("name", ["missing.jsonl", ".", "", "a\0b"])
def test_a_file_that_cannot_be_read_exits_with_2(offline: Cli, name: str) -> None:
    assert "error: --from" in offline.refused(2, "enqueue", "--from", name)


def test_an_endless_line_is_refused_before_it_is_read(offline: Cli) -> None:
    assert "longer than" in offline.refused(2, "enqueue", "--from", "/dev/zero")
