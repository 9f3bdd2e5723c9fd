"""`list`, `show`, `why`, `wait`."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobqueue import JobQueue
from jobqueue.cli.commands.jobs import SAMPLE_ROWS

from tests.cli.conftest import Cli


def test_list_is_newest_first_and_has_a_limit(bare: Cli) -> None:
    ids = [bare.id("t") for _ in range(4)]
    assert [job["id"] for job in bare.json("list", "--limit", 3)] == ids[:0:-1]
    table = bare.ok("list").splitlines()
    assert table[0].split()[:3] == ["ID", "STATE", "TASK"]
    assert [int(line.split()[0]) for line in table[1:]] == ids[::-1]


def test_limit_0_gives_all_as_one_array_printed_as_it_comes(bare: Cli) -> None:
    text = '{"task": "t"}\n' * 5100  # More than a page of the store.
    assert bare.json("enqueue", "--from", "-", input=text)["enqueued"] == 5100
    out = bare.ok("list", "--limit", 0, "--json")
    assert len(json.loads(out)) == 5100
    assert out.count("\n") == 5100  # A line for each: nobody had to hold all.
    assert len(bare.ok("list", "--limit", 0).splitlines()) == 5101


def test_no_jobs_is_an_empty_array_or_a_note(bare: Cli) -> None:
    assert bare.ok("list", "--json") == "[]\n"
    empty = bare("list")
    assert (empty.exit_code, empty.stdout, empty.stderr) == (0, "", "no jobs\n")


def test_filters_of_list_meet(bare: Cli) -> None:
    bare.id("a", "--queue", "q", "--tag", "x", "--tag", "y")
    bare.id("a", "--queue", "r", "--delay", "1h")
    bare.id("b", "--queue", "q")

    def ids(*options: str) -> list[int]:
        return [job["id"] for job in bare.json("list", *options)]

    assert ids("--task", "a") == [2, 1]
    assert ids("--queue", "q") == [3, 1]
    assert ids("--state", "scheduled") == [2]
    assert ids("--tag", "y", "--task", "a") == [1]
    assert ids("--tag", "Y") == []
    assert ids("--since", "1h") == [3, 2, 1]
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert ids("--since", future) == []


def test_show_has_everything_of_a_failed_job(cli_with_app: Cli) -> None:
    id_ = cli_with_app.id("fail", "broken\nbadly", "--tag", "t", "--unique-key", "k")
    cli_with_app.drain()
    job = cli_with_app.json("show", id_)
    assert job["error"]["type"] == "ValueError"
    (attempt,) = job["attempts"]
    assert (attempt["attempt"], attempt["outcome"]) == (1, "errored")
    assert "raise ValueError(message)" in attempt["error"]["traceback"]
    page = cli_with_app.ok("show", id_)
    for part in (
        f"job {id_}  fail  failed",
        "attempt     1 of 1",
        '"broken\\nbadly"',
        "ValueError: broken\\nbadly",
        "    raise ValueError(message)",
        "unique key  k until finished",
        "tags        t",
        "created     20",
    ):
        assert part in page, page


def test_why_is_one_sentence_and_what_to_do(bare: Cli) -> None:
    id_ = bare.id("t", "--delay", "3h", "--queue", "mail")
    assert bare.ok("why", id_) == (
        f"job {id_}: due in 3 h\nto do: wait, or run it now: jobqueue retry {id_}\n"
    )
    due = bare.id("t", "--queue", "mail")
    assert bare.json("why", due) == {
        "id": due,
        "code": "no_worker",
        "sentence": "no live worker serves queue mail",
        "advice": "start one: jobqueue worker --app MODULE:NAME --queues mail",
        "jobs": [],
        "names": ["mail"],
    }


def test_why_of_no_job_and_of_no_id_is_refused(bare: Cli) -> None:
    bare.id("t")
    assert "there is no job 99 (any more)" in bare.refused(1, "why", 99)
    assert "'x' is not a job's id" in bare.refused(2, "why", "x")


def test_show_of_a_waiting_job_says_when_it_is_due(bare: Cli) -> None:
    page = bare.ok("show", bare.id("t", "x=1", "--delay", "2h", "--priority", -5))
    assert "in 2h" in page
    assert "x = 1" in page
    assert "priority -5" in page


def test_show_of_an_unknown_job_exits_with_1_and_of_nonsense_with_2(bare: Cli) -> None:
    assert "there is no job 77" in bare.refused(1, "show", 77)
    assert "'7x' is not a job's id" in bare.refused(2, "show", "7x")


def test_wait_exits_by_how_the_jobs_ended(cli_with_app: Cli) -> None:
    good, bad = cli_with_app.id("add", 1, 2), cli_with_app.id("fail")
    cli_with_app.drain()
    assert cli_with_app.ok("wait", good) == f"{good}  succeeded  3\n"
    assert cli_with_app.json("wait", good)["attempts"][0]["outcome"] == "succeeded"
    both = cli_with_app("wait", good, bad, good, "--json")
    assert both.exit_code == 1
    assert [job["state"] for job in json.loads(both.stdout)] == ["succeeded", "failed"]
    assert json.loads(both.stderr)["error"]["value"] == bad
    message = cli_with_app.refused(1, "wait", good, bad)
    assert f"job {bad} (fail) failed: ValueError: it broke" in message


def test_wait_ends_with_its_timeout(bare: Cli) -> None:
    id_ = bare.id("t")
    waited = bare("wait", id_, "--timeout", "0.1")
    assert waited.exit_code == 1
    none, late = waited.stderr.splitlines()
    assert none == "no worker is running yet; start one with: jobqueue worker --app MODULE:NAME"
    assert f"not ended within 100ms: job {id_}" in late


def test_wait_for_a_cancelled_job_exits_with_1(bare: Cli) -> None:
    id_ = bare.id("t")
    bare.ok("cancel", id_)
    assert "was cancelled" in bare.refused(1, "wait", id_)


def test_wait_for_an_unknown_job_exits_with_1_at_once(bare: Cli) -> None:
    id_ = bare.id("t")
    assert "there is no job 99" in bare.refused(1, "wait", id_, 99)


@pytest.mark.parametrize(
    "args", ["no json", "[]", '{"args": 5, "kwargs": {}}', '{"args":[NaN],"kwargs":{}}']
)
def test_a_row_that_someone_wrote_with_sql_breaks_no_command(
    bare: Cli, url: str, args: str
) -> None:
    from sqlalchemy import text

    from jobqueue.store.database import Store

    store = Store(url)
    with store.write() as connection:
        if store.backend.single_writer:  # As an older schema, or a damaged file, may have it.
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        connection.execute(
            text("INSERT INTO jobqueue_jobs (task, args) VALUES ('t', :args)"), {"args": args}
        )
    store.close()
    assert bare.json("list")[0]["task"] == "t"
    assert bare.json("show", 1)["task"] == "t"
    assert "t" in bare.ok("list")
    assert "t" in bare.ok("show", 1)


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("width", [80, 120])
def test_a_list_shows_names_whole_and_no_column_of_nothing(
    bare: Cli, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    name = "synchronise_all_customer_records"
    bare.id(name, "ada.lovelace@example.org " * 9, "--queue", "customers-of-the-north")
    head, row = bare.ok("list").splitlines()
    assert name in row
    assert ("customers-of-the-north" in row) is ("QUEUE" in head) is (width == 120)
    assert "TAGS" not in head
    bare.id(name, "x" * 99, "--tag", "urgent")
    assert all(name in line for line in bare.ok("list").splitlines()[1:])
    assert name in bare.ok("stats")


@pytest.mark.databases("sqlite")
def test_half_a_terminal_of_40_columns_is_for_names(
    cli_with_app: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    name = "synchronise_all_records_of_every_customer_of_ours"
    path = Path(f"{str(cli_with_app.app).split(':')[0]}.py")
    path.write_text(path.read_text().replace("def fail(", f"def {name}("))
    cli_with_app.id(name)
    cli_with_app.drain()
    for command in (["list"], ["errors"], ["top", "--once"]):
        lines = cli_with_app.ok(*command).splitlines()
        assert any(re.search(r"synchron\w+…\w+_of_ours", line) for line in lines), lines
        assert max(map(len, lines)) <= 40


@pytest.mark.parametrize("width", ["50", "200", ""])
def test_a_list_names_the_worker_of_a_running_job_once(
    bare: Cli, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    bare.id("t")
    with JobQueue(bare.url) as queue, queue.store.write() as connection:
        connection.exec_driver_sql(
            "UPDATE jobqueue_jobs SET state = 'running', worker_id = 7, worker = 'web-1'"
        )
    head, row = bare.ok("list").splitlines()
    assert row.count("web-1") == 1
    assert row.endswith("on web-1") is ("WORKER" not in head) is (width == "50")
    with JobQueue(bare.url) as queue, queue.store.write() as connection:
        connection.exec_driver_sql("UPDATE jobqueue_jobs SET progress_message = 'half'")
    row = bare.ok("list").splitlines()[1]
    assert row.endswith("half") and ("web-1" in row) is (width != "50")


@pytest.mark.parametrize("width", ["120", "200", ""])
def test_a_long_list_shows_why_a_job_failed_behind_many_without_a_detail(
    bare: Cli, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    text = '{"task": "t"}\n' * (SAMPLE_ROWS + 1)
    assert bare.json("enqueue", "--from", "-", input=text)["enqueued"] == SAMPLE_ROWS + 1
    with JobQueue(bare.url) as queue, queue.store.write() as connection:
        connection.exec_driver_sql(
            "UPDATE jobqueue_jobs SET state = 'running', worker_id = 7, worker = 'web-1'"
        )
        connection.exec_driver_sql(
            "UPDATE jobqueue_jobs SET state = 'failed', reason = 'the disk is full', "
            "worker_id = NULL, worker = NULL WHERE id = (SELECT min(id) FROM jobqueue_jobs)"
        )
    head, *rows = bare.ok("list", "--limit", 0).splitlines()
    assert head.endswith("DETAIL") and len(rows) == SAMPLE_ROWS + 1
    assert rows[-1].endswith("the disk is full")
    assert all(row.count("web-1") == 1 for row in rows[:-1])


def test_a_job_that_waits_for_its_key_says_so(bare: Cli) -> None:
    bare.id("t", "--unique-key", "k")
    with JobQueue(bare.url) as queue, queue.store.write() as connection:
        connection.exec_driver_sql("UPDATE jobqueue_jobs SET state = 'running', worker_id = 7")
    next_ = bare.id("t", "--unique-key", "k", "--rerun")
    row = next(line for line in bare.ok("list").splitlines() if line.startswith(f"{next_:>2} "))
    assert row.endswith("waits for its unique key") and "due" not in row
    shown = bare.ok("show", next_)
    assert "unique key  k until finished, waits for it" in shown and "due " not in shown
