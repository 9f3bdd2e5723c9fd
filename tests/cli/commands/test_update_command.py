"""`update`, and the dry run of all bulk verbs."""

import pytest

from tests.cli.conftest import Cli

BAD_INPUT = [
    (("1",), "nothing to change"),
    (("1", "--priority", "high"), "priority"),
    (("1", "--priority", "99999999999"), "priority"),
    (("1", "--queue", "a b"), "queue"),
    (("1", "--at", "tomorrow"), "at"),
    (("1", "--at", "2100-01-01T00:00:00"), "time zone"),
    (("1", "--tag", "a b"), "tag"),
    (("x", "--priority", "1"), "id"),
    (("--priority", "1"), "one of the three"),
    (("1", "--all", "--priority", "1"), "one of the three"),
    (("--in-queue", "nosuch", "--priority", "1", "--yes"), "nosuch"),
    (("--state", "running", "--priority", "1", "--yes"), "running"),
    (("--all", "--priority", "1"), "--yes"),
]


def test_a_job_is_changed_by_id_and_many_by_filter(bare: Cli) -> None:
    ids = [bare.id("add", "1", "--queue", queue) for queue in ("mail", "mail", "sms")]
    assert bare.ok("update", ids[0], "--priority", "-2", "--tag", "a", "--tag", "b") == (
        "updated 1 job\n"
    )
    job = bare.json("show", ids[0])
    assert (job["priority"], job["tags"], job["queue"]) == (-2, ["a", "b"], "mail")
    at = "2100-01-01T00:00:00+00:00"
    changed = bare.json("update", "--in-queue", "mail", "--queue", "bulk", "--at", at, "--yes")
    assert changed == {"changed": 2, "refused": []}
    found = [bare.json("show", id_) for id_ in ids]
    assert [(job["queue"], job["state"]) for job in found] == [
        *(("bulk", "scheduled"), ("bulk", "scheduled"), ("sms", "available"))
    ]
    assert found[1]["run_at"] == at
    (row, first) = bare.json("log")
    assert (row["target"], row["changed"]) == (
        {"queue": "mail", "set": {"queue": "bulk", "at": at}},
        2,
    )
    assert first["target"] == {"ids": [ids[0]], "set": {"priority": -2, "tags": ["a", "b"]}}


def test_what_has_ended_or_is_not_there_is_refused(bare: Cli) -> None:
    id_ = bare.id("add", "1")
    bare.ok("cancel", id_)
    assert "cancelled and cannot be changed" in bare.refused(1, "update", id_, "--priority", 1)
    assert "no such job" in bare.refused(1, "update", 99, "--priority", 1)


def test_a_job_that_is_so_already_needs_nothing_and_is_not_in_the_log(bare: Cli) -> None:
    id_, other = bare.id("add", "1"), bare.id("add", "1", "--priority", 5)
    assert bare.ok("update", id_, "--priority", 0) == "updated 0 jobs; 1 needed nothing\n"
    assert bare.json("log") == []
    assert bare.ok("update", id_, other, "--priority", 5) == "updated 1 job; 1 needed nothing\n"
    assert [row["changed"] for row in bare.json("log")] == [1]
    every = ("update", "--all", "--yes", "--priority", 5)
    assert bare.ok(*every) == "updated 0 jobs; 2 needed nothing\n"
    assert bare.json(*every) == {"changed": 0, "refused": [], "unchanged": 2}
    bare.id("add", "1")
    assert bare.ok(*every) == "updated 1 job; 2 needed nothing\n"


def test_a_retry_says_how_many_jobs_of_a_filter_are_left_out_since_others_hold_their_keys(
    bare: Cli,
) -> None:
    for _ in range(2):
        bare.ok("cancel", bare.id("add", "1", "--unique-key", "k"))
    bare.id("add", "1", "--unique-key", "k")
    retried = bare.ok("retry", "--state", "cancelled", "--yes")
    assert retried == "retried 0 jobs; 2 left out, as other jobs hold their unique keys\n"


@pytest.mark.databases("sqlite")
def test_bad_input_is_one_line_and_changes_nothing(bare: Cli) -> None:
    id_ = bare.id("add", "1")
    before = bare.json("show", id_)
    for words, why in BAD_INPUT:
        assert why in bare.refused(2, "update", *words), words
    assert bare.json("show", id_) == before and bare.json("log") == []


@pytest.mark.parametrize("verb", ["update", "cancel", "retry", "delete"])
def test_a_dry_run_prints_the_count_and_a_sample_and_changes_nothing(bare: Cli, verb: str) -> None:
    how = ("--priority", "5") if verb == "update" else ()
    ids = [bare.id("add", "1", "--delay", "1h") for _ in range(12)]
    before = bare.json("list")
    text = bare.ok(verb, "--all", *how, "--dry-run")
    assert text.startswith(f"would {verb} 12 jobs in ") and "nothing was changed" in text
    assert (text.count("  add\n"), text.splitlines()[-1]) == (10, "  and 2 more")
    assert len({line.index("add") for line in text.splitlines()[1:-1]}) == 1
    assert bare.json(verb, *ids[:2], 99, *how, "--dry-run") == {
        "dry_run": True,
        "would_change": 2,
        "sample": [{"id": id_, "task": "add"} for id_ in (ids[1], ids[0])],
    }
    assert (bare.json("list"), bare.json("log")) == (before, [])
    other = "--with-tag" if verb == "update" else "--tag"
    assert "nosuch" in bare.refused(2, verb, other, "nosuch", *how, "--dry-run")
