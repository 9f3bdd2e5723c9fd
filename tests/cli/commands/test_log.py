"""`log`: what operators did."""

import getpass
import socket

import pytest

from jobqueue.cli.commands import queues

from tests.cli.conftest import Cli

ME = f"{getpass.getuser()}@{socket.gethostname()}"
ACTIONS = [
    (("cancel", "1"), "cancel", {"ids": [1]}, 1),
    (("cancel", "--queue", "mail", "--yes"), "cancel", {"queue": "mail"}, 2),
    (("retry", "1", "2"), "retry", {"ids": [1, 2]}, 2),
    (("delete", "--all", "--yes"), "delete", {"all": True}, 3),
    (("queues", "pause", "mail"), "pause", {"queue": "mail"}, 1),
    (("queues", "resume", "mail"), "resume", {"queue": "mail"}, 1),
    (("pause", "--task", "add"), "pause", {"task": "add"}, 1),
    (("resume", "--task", "add"), "resume", {"task": "add"}, 1),
    (("schedules", "add", "s", "add", "2", "--every", "5m"), "add", {"schedule": "s"}, 1),
    (("schedules", "pause", "s"), "pause", {"schedule": "s"}, 1),
    (("schedules", "resume", "s"), "resume", {"schedule": "s"}, 1),
    (("schedules", "run", "s"), "run", {"schedule": "s"}, 1),
    (("schedules", "remove", "s"), "remove", {"schedule": "s"}, 1),
]


def test_every_command_that_changes_something_is_in_the_log_newest_first(bare: Cli) -> None:
    for queue in ("default", "mail", "mail"):
        bare.ok("enqueue", "add", "secret", "--queue", queue)
    assert bare.json("log") == []
    for command, *_ in ACTIONS:
        bare.ok(*command)
        bare(*command[:2], "no-such-name")  # Refused, or it needed nothing: no row.
    rows = bare.json("log")
    assert [(row["verb"], row["target"], row["changed"]) for row in rows] == [
        (verb, target, changed) for _, verb, target, changed in reversed(ACTIONS)
    ]
    assert {row["actor"] for row in rows} == {ME}
    assert "secret" not in bare.ok("log")
    assert [row["id"] for row in bare.json("log", "--limit", 2)] == [13, 12]


def test_the_log_is_a_table_and_says_when_it_is_empty(bare: Cli) -> None:
    bare.ok("enqueue", "add")
    assert bare("log").stderr == "no operator has changed anything yet\n"
    bare.ok("queues", "pause", "default")
    text = bare.ok("log", "--since", "1h")
    assert ME in text and "pause" in text and "queue default" in text
    assert bare.json("log", "--since", "2100-01-01T00:00:00Z") == []


def test_an_action_is_taken_back_by_its_id(bare: Cli) -> None:
    bare.ok("enqueue", "add", "--queue", "mail")
    for most in (4, 10):
        bare.ok("queues", "limit", "mail", most)
    assert "queue mail, limit 4 → 10" in bare.ok("log")
    (row, _) = bare.json("log")
    assert (row["before"], row["about"]) == ({"limit": 4}, "queue mail, limit 4 → 10")
    assert bare.ok("undo", row["id"]) == "undone: limit queue mail, limit 10 → 4\n"
    assert bare.json("queues")[0]["max_running"] == 4
    assert f"undone already, by {ME} at 20" in bare.refused(1, "undo", row["id"])
    said = "limit queue mail, limit 4 → 10"
    assert bare.json("undo", 3) == {"changed": 1, "undone": said}
    assert "there is no action 99 (any more); see: jobqueue log" in bare.refused(1, "undo", 99)
    assert bare.refused(2, "log", "--since", "yesterday") == (
        "error: since: 'yesterday' is not an instant; write 2026-12-24T18:00+01:00, "
        "or a time before now such as 2h"
    )
    for wrong in ("0", "x", "-1"):
        said = f"error: id: '{wrong}' is not the id of an action; see: jobqueue log"
        assert bare.refused(2, "undo", "--", wrong) == said


def test_a_screen_of_80_columns_shows_what_was_set(
    bare: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "operator", lambda: "ada@host")
    queue = "queue-of-a-tenant-with-40-cells-abcdefgh"
    bare.ok("enqueue", "add", "--queue", queue)
    for rate, burst in (("100/minute", 20), ("1000/minute", 50)):
        bare.ok("queues", "rate", queue, rate, "--burst", burst)
    monkeypatch.setenv("COLUMNS", "80")
    _, newest, *more, _, _ = bare.ok("log").splitlines()
    assert max(map(len, [newest, *more])) <= 80
    assert newest.split()[2:5] == ["ada@host", "rate", "queue"]
    column = newest.index("queue ")
    assert {line[:column].strip() for line in more} == {""}
    said = " ".join([newest[column:-1], *more])
    assert said.replace(" ", "") == f"queue{queue},rate100/minute,burst20→1000/minute,burst50"
    monkeypatch.setenv("COLUMNS", "160")
    assert len(bare.ok("log").splitlines()) == 3


def test_bad_limits_and_instants_are_refused(bare: Cli) -> None:
    bare.ok("enqueue", "add")
    assert "limit" in bare.refused(2, "log", "--limit", "-1")
    assert "since" in bare.refused(2, "log", "--since", "soon")
    assert bare.refused(2, "log", "--since", "9999-12-31T00:00Z") == (
        "error: since: 9999-12-31T00:00Z is out of range; give a year from 1970 to 9998, "
        "or a time before now such as 2h"
    )
