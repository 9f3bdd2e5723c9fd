"""`stats`, `queues`, `workers`, `tasks`, `prune`, `db`."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len
from sqlalchemy import text

from jobqueue import JobQueue
from jobqueue.cli import tables
from jobqueue.cli.commands import errors, jobs, schedules
from jobqueue.cli.commands import stats as monitor
from jobqueue.cli.commands.top import draw
from jobqueue.display import ago
from jobqueue.records import counted
from jobqueue.store import queue_figures
from jobqueue.store.schema import REVISION

from tests.cli.conftest import Cli


def test_stats_counts_by_queue_and_by_task(cli_with_app: Cli) -> None:
    cli_with_app.id("add", 1, 2)
    cli_with_app.id("fail")
    cli_with_app.drain()
    cli_with_app.id("mail", "x")
    stats = cli_with_app.json("stats")
    default, mail = stats["queues"]
    assert (default["succeeded"], default["failed"], mail["available"]) == (1, 1, 1)
    assert mail["paused"] is False
    assert mail["oldest_available_seconds"] >= 0
    assert stats["workers"] == 0
    assert stats["throughput_per_second"] > 0
    assert {task["task"] for task in stats["tasks"]} == {"add", "fail", "mail"}
    text = cli_with_app.ok("stats")
    assert "total" in text
    assert "0 workers" in text


def test_what_waits_is_counted_up_to_a_bound(
    cli_with_app: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, bound in {"EACH": 2, "BUDGET": 2, "AVAILABLE_MAX": 2}.items():
        monkeypatch.setattr(queue_figures, name, bound)
    monkeypatch.setattr(queue_figures, "TASKS_MAX", 3)
    for n in range(4):
        cli_with_app.id("add", n, 0)
    cli_with_app.id("mail", "x")
    words = [line.split()[:2] for line in cli_with_app.ok("stats").splitlines() if line]
    for row in (["default", "2+"], ["mail", "1"], ["total", "3+"], ["add", "3+"]):
        assert row in words, row
    assert ["default", "2+"] in [
        line.split()[:2] for line in cli_with_app.ok("queues").splitlines()
    ]


def test_stats_of_nothing(bare: Cli) -> None:
    assert bare.json("stats") == {
        "queues": [],
        "tasks": [],
        "workers": 0,
        "throughput_per_second": 0.0,
        "minutes": [],
        "pauses": [],
    }
    assert bare.ok("stats") == "0 workers, 0 jobs in the last minute\n"


@pytest.mark.parametrize(
    ("per_second", "said"),
    [
        (0.0, "0 jobs"),
        (0.024, "2 jobs"),  # Of the previous minute a part is counted.
        (1 / 60, "1 job"),
        (0.99, "60 jobs"),
        (1.0, "1 jobs/s"),
        (12.345, "12.3 jobs/s"),
        (43_510.2, "43,510 jobs/s"),
    ],
)
def test_a_rate_below_one_a_second_is_a_count(per_second: float, said: str) -> None:
    assert monitor.throughput(per_second) == said


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (0, "job", "0 jobs"),
        (1, "job", "1 job"),
        (1790, "job", "1,790 jobs"),
        (1, "process", "1 process"),
        (2, "process", "2 processes"),
    ],
)
def test_a_count_is_told_with_its_noun(count: int, noun: str, said: str) -> None:
    assert counted(count, noun) == said


def test_columns_have_the_names_that_other_tools_give_them(cli_with_app: Cli) -> None:
    cli_with_app.id("add", 1, 2)
    cli_with_app.drain()
    queues, tasks, minutes, _ = cli_with_app.ok("stats").split("\n\n")
    assert {"OLDEST", "PAUSED", "LIMIT"} <= set(queues.split())
    assert {"AVG", "MAX", "WAIT"} <= set(tasks.split())
    assert {"AVG", "P50", "P95", "WAIT", "WAITING"} <= set(minutes.split())


def test_stats_tell_what_all_workers_did_in_each_of_the_last_minutes(cli_with_app: Cli) -> None:
    for words in (["add", 1, 2], ["add", 3, 4], ["fail"]):
        cli_with_app.id(*words)
        cli_with_app.drain()
    minutes = cli_with_app.json("stats")["minutes"]
    assert sum(minute["processed"] for minute in minutes) == 3  # The tests may run over a minute.
    assert sum(minute["failed"] for minute in minutes) == 1
    for minute in minutes:
        assert datetime.fromisoformat(minute["minute"]).tzinfo is not None
        assert 0 <= minute["avg_duration"] <= minute["p95_duration"]
        assert 0 <= minute["p50_wait"] <= minute["p95_wait"]
        assert 0 <= minute["utilisation"] <= 1
        assert minute["waiting"] == 0
    assert "PROCESSED" in cli_with_app.ok("stats")
    assert cli_with_app.json("stats", "--minutes", 0)["minutes"] == []
    assert "PROCESSED" not in cli_with_app.ok("stats", "--minutes", 0)
    assert "minutes" in cli_with_app.refused(2, "stats", "--minutes", "-1")


def test_queues_are_limited_and_purged(cli_with_app: Cli) -> None:
    id_ = cli_with_app.id("mail", "x")
    assert cli_with_app.ok("queues", "limit", "mail", 0) == "mail runs at most 0 jobs at once\n"
    said = cli_with_app.ok("queues", "rate", "mail", "100/minute", "--burst", 5)
    assert said == "mail starts 100/minute, burst 5\n"
    assert cli_with_app.ok("queues", "fair", "mail", "on") == "mail is fair\n"
    for again, says in (
        (("limit", "mail", 0), "mail runs at most 0 jobs at once already"),
        (("rate", "mail", "100/60", "--burst", 5), "mail starts 100/minute, burst 5 already"),
        (("fair", "mail", "on"), "mail is fair already"),
    ):
        assert cli_with_app.ok("queues", *again) == f"{says}\n"
        assert cli_with_app.json("queues", *again) == {"changed": 0, "queues": ["mail"]}
    (row,) = [row for row in cli_with_app.json("queues", "list") if row["queue"] == "mail"]
    assert (row["max_running"], row["rate_count"], row["rate_period"], row["fair"]) == (
        *(0, 100, 60.0),
        True,
    )
    assert re.search(r"^mail .* 0 +100/minute, burst 5 +yes *$", cli_with_app.ok("queues"), re.M)
    cli_with_app.drain()
    assert cli_with_app.json("show", id_)["state"] == "available"
    for wrong, says in (
        (("limit", "mail", "off"), "limit: 'off' is neither a whole number nor none"),
        (("rate", "mail", "off"), "rate: 'off' is neither a rate, such as 100/minute, nor none"),
        (("rate", "mail", "1/400d"), "'1/400d' is not a rate ('400d' is out of range; at least"),
    ):
        assert says in cli_with_app.refused(2, "queues", *wrong)
    assert cli_with_app.ok("queues", "limit", "mail", "none") == "mail has no limit\n"
    assert cli_with_app.ok("queues", "rate", "mail", "none") == "mail has no rate\n"
    assert cli_with_app.ok("queues", "fair", "mail", "off") == "mail is not fair\n"
    would = {"dry_run": True, "would_change": 1, "sample": [{"id": id_, "task": "mail"}]}
    assert cli_with_app.json("queues", "purge", "mail", "--dry-run") == would
    assert "would purge 1 job in" in cli_with_app.ok("queues", "purge", "mail", "--dry-run")
    assert "pass --yes" in cli_with_app.refused(2, "queues", "purge", "mail")
    answer = json.loads(cli_with_app.ok("queues", "purge", "mail", "--yes", "--json"))
    assert answer == {"deleted": 1}


def test_limits_and_rates_are_shown_on_a_screen_of_80_columns(
    cli_with_app: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli_with_app.id("mail", "x")
    monkeypatch.setenv("COLUMNS", "80")
    assert {"SCHEDULED", "SUCCEEDED"} <= set(cli_with_app.ok("queues").split())
    cli_with_app.ok("queues", "limit", "mail", 0)
    cli_with_app.ok("queues", "rate", "mail", "100/minute", "--burst", 5)
    cli_with_app.ok("queues", "fair", "mail", "on")
    for command in ("queues", "stats"):
        lines = cli_with_app.ok(command).splitlines()
        assert {"LIMIT", "RATE", "OLDEST", "FAILED"} <= set(lines[0].split())
        assert re.search(r" 0 +100/minute, burst 5", lines[1])
        assert max(map(len, lines)) <= 80


def test_a_long_name_is_cut_in_the_middle_before_a_switch_or_a_count_is_left_out(
    cli_with_app: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = "queue-of-a-tenant-with-40-cells-abcdefgh"
    task = "example.billing.tasks.generate_pdf_of_it"
    for app in (cli_with_app.app, None):
        cli_with_app.app = app
        cli_with_app.ok("enqueue", *(["mail", "x"] if app else [task]), "--queue", queue)
    cli_with_app.ok("queues", "limit", queue, 4)
    cli_with_app.ok("queues", "rate", queue, "10/5m", "--burst", 3)
    monkeypatch.setenv("COLUMNS", "80")
    for command in ("queues", "stats"):
        head, line, *more = cli_with_app.ok(command).splitlines()
        assert {"AVAILABLE", "RUNNING", "LIMIT", "RATE", "FAILED"} <= set(head.split())
        assert re.match(r"queue-of-\S+…\S+abcdefgh +2 .* 4 +10/5m, burst 3", line)
        assert max(map(len, [head, line, *more])) <= 80
    assert {"SUCCEEDED", "FAILED", "ERRORS"} <= set(" ".join(more).split())
    assert any(re.match(r"example\.bil\S+…\S+_pdf_of_it +1 ", line) for line in more)
    assert re.search(r"^queue-of-\S+…\S+abcdefgh +2 ", cli_with_app.ok("top", "--once"), re.M)
    monkeypatch.setenv("COLUMNS", "160")
    assert queue in cli_with_app.ok("queues") and task in cli_with_app.ok("tasks")


def test_two_names_that_differ_do_not_look_alike_once_they_are_cut(
    bare: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for region in "AB":
        queue = f"customers-of-the-north-west-region-{region}-and-their-letters"
        bare.id("t", "--queue", queue)
    lines = bare.ok("queues").splitlines()[1:]
    assert len({line.split()[0] for line in lines}) == 2
    assert all(len(line) <= 80 for line in lines)


def test_no_blank_is_put_for_half_a_wide_letter_of_a_name_that_is_cut() -> None:
    name = "日本語の仕事の名前はとても長い"
    for width in range(4, 2 * len(name)):
        cut = tables.cut_in_middle(name, width, tables.console())
        assert " " not in cut and cell_len(cut) in (width, width - 1)


def test_a_mark_is_not_put_on_the_dots_of_a_name_that_is_cut() -> None:
    name = "worker-of-cafe\u0301-host"
    for width in range(2, len(name) - 1):
        cut = tables.cut_in_middle(name, width, tables.console())
        assert "\u2026\u0301" not in cut and cell_len(cut) <= width


def test_what_names_a_row_is_cut_in_its_middle_in_every_table() -> None:
    tables = (jobs.LIST, errors.COLUMNS, schedules.SCHEDULES, draw.WORKERS, draw.RUNNING)
    columns = [column for each in (*tables, monitor.WORKERS) for column in each]
    named = [each for each in columns if each.title in ("queue", "task", "worker", "schedule")]
    assert len(named) == 9
    assert [each.title for each in named if not each.in_middle] == []


def test_queues_pause_and_resume(cli_with_app: Cli) -> None:
    id_ = cli_with_app.id("mail", "x")
    assert cli_with_app.ok("queues", "pause", "mail") == "mail paused\n"
    assert cli_with_app.ok("queues", "pause", "mail", "mail") == "mail paused already\n"
    twice = cli_with_app.json("queues", "pause", "mail", "mail")
    assert twice == {"changed": 0, "queues": ["mail"]}
    assert cli_with_app.json("queues")[0]["paused"] is True
    assert re.search(r"^mail .* yes$", cli_with_app.ok("queues"), re.MULTILINE)
    cli_with_app.drain()
    assert cli_with_app.json("show", id_)["state"] == "available"
    answer = json.loads(cli_with_app.ok("queues", "resume", "mail", "default", "--json"))
    assert answer == {"changed": 1, "queues": ["mail", "default"]}
    cli_with_app.drain()
    assert cli_with_app.json("show", id_)["state"] == "succeeded"


def test_tasks_are_those_of_the_app_and_those_of_the_database(cli_with_app: Cli) -> None:
    app, cli_with_app.app = cli_with_app.app, None
    cli_with_app.id("stranger")
    (row,) = cli_with_app.json("tasks")
    assert (row["task"], row["waiting"], row["registered"]) == ("stranger", 1, None)
    cli_with_app.app = app
    rows = {row["task"]: row for row in cli_with_app.json("tasks")}
    assert rows["stranger"]["registered"] is False
    assert (rows["mail"]["registered"], rows["mail"]["queue"]) == (True, "mail")
    assert rows["add"]["signature"] == "(x: int, y: int) -> int"
    assert "not in the app" in cli_with_app.ok("tasks")


def test_workers_lists_the_living(cli_with_app: Cli, spawn, wait_until) -> None:
    assert cli_with_app.json("workers") == []
    env = {"JOBQUEUE_URL": cli_with_app.url, "JOBQUEUE_APP": cli_with_app.app}
    spawn("worker", "--name", "Ada", "-c", 3, "-q", "mail:2,default", env=env)
    rows = wait_until(lambda: cli_with_app.json("workers"))
    assert (rows[0]["worker"], rows[0]["concurrency"]) == ("Ada", 3)
    assert sorted(rows[0]["queues"]) == ["default", "mail"]
    assert "Ada" in cli_with_app.ok("workers")
    # None of their jobs is there yet, and the worker knows them all the same.
    assert {row["known_by"] for row in cli_with_app.json("tasks")} == {1}


@pytest.mark.parametrize(
    ("distance", "words"),
    [
        (timedelta(minutes=59, seconds=58), "1h"),
        (timedelta(hours=23, minutes=59), "1d"),
        (timedelta(days=49, hours=23, minutes=59), "50d"),
        (timedelta(days=300), "300d"),
        (timedelta(days=3650), "3650d"),
    ],
)
def test_how_far_an_instant_is_off_by_no_day(distance: timedelta, words: str) -> None:
    now = datetime.now(UTC)
    assert ago(now + distance, now) == f"in {words}"
    assert ago(now - distance, now) == f"{words} ago"


def test_prune_deletes_by_age_and_asks_before_it_deletes_everything(cli_with_app: Cli) -> None:
    cli_with_app.id("add", 1, 2)
    cli_with_app.id("fail")
    cli_with_app.drain()
    assert cli_with_app.json("prune")["deleted"] == 0
    message = cli_with_app.refused(2, "prune", "--older-than", 0)
    assert "prune 1 job (succeeded, cancelled) in " in message
    answer = cli_with_app.json("prune", "--older-than", 0, "--yes")
    assert answer == {"deleted": 1, "succeeded": 1, "cancelled": 0, "failed": 0}
    answer = cli_with_app("prune", "--failed-older-than", 0, "--yes")
    assert answer.stdout == "deleted 1 job: 1 failed\n"
    assert answer.stderr.startswith("pruning ")


def test_db_upgrade_current_and_check(empty_url: str) -> None:
    it = Cli(empty_url)
    assert it.json("db", "current") == {"revision": None, "needed": REVISION}
    assert "there is no jobqueue schema" in it.refused(1, "db", "check")
    assert it.json("db", "upgrade") == {"before": None, "after": REVISION, "changed": True}
    assert "already" in it.ok("db", "upgrade")
    assert it.ok("db", "current") == f"{REVISION}\n"
    assert it.json("db", "check")["problems"] == []
    assert "as it should be" in it.ok("db", "check")


@pytest.mark.databases("postgres")
def test_without_a_schema_every_command_says_so_in_one_line(empty_url: str) -> None:
    for words in (["list"], ["enqueue", "t"], ["stats"], ["show", "1"], ["prune"]):
        message = Cli(empty_url).refused(1, *words)
        assert "there is no queue in postgresql://" in message
        assert "run jobqueue db upgrade" in message


def test_a_newer_schema_is_left_alone(url: str) -> None:
    from sqlalchemy import text

    from jobqueue.store.database import Store

    store = Store(url)
    with store.write() as connection:
        connection.execute(text("UPDATE jobqueue_alembic_version SET version_num = '9999'"))
    store.close()
    it = Cli(url)
    for words in (["list"], ["db", "upgrade"], ["db", "check"]):
        assert "upgrade jobqueue" in it.refused(1, *words)


def test_a_table_that_is_missing_is_found_by_check(url: str) -> None:
    from sqlalchemy import text

    from jobqueue.store.database import Store

    store = Store(url)
    with store.write() as connection:
        connection.execute(text("DROP TABLE jobqueue_attempts"))
    store.close()
    result = Cli(url)("db", "check", "--json")
    assert result.exit_code == 1
    assert "jobqueue_attempts" in json.dumps(json.loads(result.stdout)["problems"])


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_sql_is_printed_without_a_connection(offline: Cli, dialect: str, tmp_path) -> None:
    assert "CREATE TABLE jobqueue_jobs" in offline.ok("db", "sql", "--dialect", dialect)
    assert "CREATE TABLE" in offline.json("db", "sql", "--dialect", dialect)["sql"]
    assert list(tmp_path.iterdir()) == []


def test_looking_at_a_file_that_is_not_there_does_not_make_it(offline: Cli, tmp_path) -> None:
    assert offline.ok("db", "current") == "none\n"
    offline.refused(1, "db", "check")
    assert list(tmp_path.iterdir()) == []
