"""`schedules`: list, preview, add, and the switches."""

import re

import pytest
from sqlalchemy import update

from jobqueue.store.database import Store
from jobqueue.store.schema import schedules
from tests.cli.conftest import Cli

SCHEDULED = """
from jobqueue import JobQueue, cron, every
jobs = JobQueue()

@jobs.task(schedule=cron("30 2 * * *", tz="Europe/Zurich"))
def nightly() -> None: ...

@jobs.task(queue="mail")
def sync(tenant: int) -> int:
    return tenant
"""


@pytest.fixture
def scheduled(bare: Cli, make_app) -> Cli:
    """The commands on a fresh database, with an app that declares a schedule."""
    bare.app = make_app(SCHEDULED)
    return bare


def names(cli: Cli) -> list[str]:
    return [row["name"] for row in cli.json("schedules")]


def test_a_schedule_is_added_changed_run_and_removed(scheduled: Cli) -> None:
    scheduled.drain()  # A worker writes what the code declares.
    text = scheduled.ok("schedules", "add", "sync-7", "sync", "7", "--every", "5m", "--tag", "x")
    assert text.startswith("sync-7: every 5m, next in ")
    scheduled.ok("schedules", "add", "sync-7", "sync", "7", "--every", "300", "--tag", "x")
    scheduled.ok("schedules", "add", "with", "sync", "7", "--every", "1h", "--header", "a=b")
    assert scheduled.json("schedules", "list")[-1]["options"]["headers"] == {"a": "b"}
    scheduled.ok("schedules", "remove", "with")
    taken = scheduled.refused(2, "schedules", "add", "sync-7", "sync", "8", "--every", "5m")
    assert "there is a schedule 'sync-7' already, for task sync (every 5m)" in taken
    assert "to change it, add it with replace (--replace)" in taken
    args = ["--cron", "@daily", "--tz", "UTC", "--catch-up", "all", "--replace"]
    changed = scheduled.json("schedules", "add", "nightly", "nightly", *args)
    assert (changed["cron"], changed["overlap"], changed["differs"]) == ("@daily", "allow", True)
    assert scheduled.ok("schedules", "pause", "sync-7", "nightly").endswith("nightly paused\n")
    assert scheduled.json("schedules", "pause", "sync-7") == {"changed": 0, "schedules": ["sync-7"]}
    listed = scheduled.ok("schedules", "list")
    assert "differs from the code" in listed and re.search(r"paused (now|\d+s ago) by ", listed)
    assert "no live worker knows the task" in listed
    by = scheduled.json("log", "--limit", "1")[0]["actor"]
    assert {row["paused_by"] for row in scheduled.json("schedules")} == {by}
    said = scheduled.ok(
        "schedules", "add", "sync-7", "sync", "7", "--every", "9m", "--tag", "x", "--replace"
    )
    assert said.startswith("sync-7: every 9m, paused ") and f" by {by}, " in said
    twice = ("sync-7", "sync-7", "nightly")
    assert scheduled.ok("schedules", "resume", *twice) == "sync-7 runs\nnightly runs\n"
    assert scheduled.json("schedules", "resume", *twice)["schedules"] == ["sync-7", "nightly"]
    assert scheduled.ok("schedules", "reset", "nightly") == "nightly is as the code declares it\n"
    scheduled.app = None  # Needed for none of these.
    id_ = int(scheduled.ok("schedules", "run", "sync-7"))
    again = scheduled("schedules", "run", "sync-7")
    assert again.stdout == f"{id_}\n" and "has not ended, and overlap is skip" in again.stderr
    job = scheduled.json("show", id_)
    assert (job["task"], job["args"], job["queue"], job["tags"]) == ("sync", [7], "mail", ["x"])
    assert names(scheduled) == ["nightly", "sync-7"]
    removed = scheduled("schedules", "remove", "sync-7", "nightly")
    assert removed.stdout == "sync-7 removed\nnightly removed\n"
    assert "the code declares nightly" in removed.stderr and "sync-7:" not in removed.stderr
    assert names(scheduled) == []


def test_a_screen_of_80_columns_shows_which_schedules_are_paused(
    scheduled: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = "a-schedule-of-a-tenant-with-a-long-name-1234567"
    when = ["--cron", "*/10 8-18 * * MON-FRI", "--tz", "America/Argentina/ComodRivadavia"]
    scheduled.ok("schedules", "add", long, "sync", "7", *when)
    scheduled.ok("schedules", "pause", long)
    head, line = scheduled.ok("schedules").splitlines()
    assert head.split()[:2] == ["SCHEDULE", "WHEN"] and head.split()[-1] == "STATE"
    assert line.startswith(long[:9]) and f"…{long[-9:]}" in line
    assert "cron */10 8-18" in line and "paused" in line
    assert max(len(head), len(line)) <= 80


def test_the_list_names_what_the_app_declares_and_no_worker_has_stored(
    scheduled: Cli, make_app
) -> None:
    unstored = "declared by the app, stored when a worker starts: nightly\n"
    assert scheduled("schedules").stderr == unstored
    scheduled.ok("schedules", "add", "sync-7", "sync", "7", "--every", "5m")
    listed = scheduled("schedules", "list")
    assert "sync-7" in listed.stdout and listed.stderr == unstored
    assert names(scheduled) == ["sync-7"]
    scheduled.drain()
    assert scheduled("schedules").stderr == ""
    scheduled.app = make_app("1 / 0")  # The list needs no app: it shows what the database has.
    listed = scheduled("schedules")
    assert "nightly" in listed.stdout and "the tasks of the app are not known" in listed.stderr
    scheduled.app = None
    scheduled.ok("schedules", "remove", "sync-7", "nightly")
    assert "no schedules yet" in scheduled("schedules").stderr


@pytest.mark.parametrize("backend_name", ["sqlite"])
def test_a_preview_without_days_prints_a_screen_of_runs_however_far_apart(scheduled: Cli) -> None:
    for name, when in (("often", "--every=10m"), ("rarely", "--cron=0 0 1 7 *")):
        scheduled.ok("schedules", "add", name, "sync", "7", when)
    for name in ("often", "nightly"):
        assert len(scheduled.ok("schedules", "preview", name).splitlines()) == 20
    # Of 3,660 days, ten years and a week.
    assert len(scheduled.ok("schedules", "preview", "rarely").splitlines()) in (10, 11)
    assert len(scheduled.ok("schedules", "preview", "often", "--days", "7").splitlines()) == 1008
    assert len(scheduled.json("schedules", "preview", "often")) == 1008


@pytest.mark.parametrize("backend_name", ["sqlite"])
def test_a_preview_marks_the_runs_that_a_clock_change_moves(scheduled: Cli) -> None:
    scheduled.ok("enqueue", "sync", "1")  # Makes the tables; no worker has written the schedule.
    lines = scheduled.ok("schedules", "preview", "nightly", "--days", "400").splitlines()
    assert len(lines) in (400, 401)
    marked = [line for line in lines if "  " in line]
    assert any("03:00:00 +02:00  moved: 02:30 is skipped" in line for line in marked)
    assert any("02:30:00 +02:00  once: 02:30 occurs twice" in line for line in marked)
    assert len(marked) in (2, 3)
    runs = scheduled.json("schedules", "preview", "nightly", "--days", "400")
    assert [run["note"] for run in runs if run["note"]] == [line.split("  ")[1] for line in marked]


@pytest.mark.parametrize("backend_name", ["sqlite"])
def test_bad_input_is_one_line_and_stores_nothing(scheduled: Cli) -> None:
    scheduled.drain()
    before = scheduled.json("schedules")
    add = ("schedules", "add", "new", "sync", "7")
    wrong = [
        ("has 6 fields, not 5", [*add, "--cron", "0 30 2 * * *"]),
        ("'*/0 * * * *': bad minute", [*add, "--cron", "*/0 * * * *"]),
        ("has 0 fields", [*add, "--cron", ""]),
        ("has 101 characters", [*add, "--cron", "1" * 101]),
        ("not a known time zone; did you mean", [*add, "--cron", "@daily", "--tz", "europe/paris"]),
        ("tz: only with --cron", [*add, "--every", "5m", "--tz", "UTC"]),
        ("give either --cron", [*add]),
        ("give either --cron", [*add, "--cron", "@daily", "--every", "5m"]),
        ("every: '0' is out of range; at least 1 s", [*add, "--every", "0"]),
        ("every: '-5m' is not", [*add, "--every=-5m"]),
        ("every: '5000d' is out", [*add, "--every", "5000d"]),
        ("catch_up: 'some' is none of", [*add, "--every", "5m", "--catch-up", "some"]),
        ("overlap: 'both' is none of", [*add, "--every", "5m", "--overlap", "both"]),
        ("no task is named 'snyc'", ["schedules", "add", "new", "snyc", "--every", "5m"]),
        ("tenant", ["schedules", "add", "new", "sync", "x", "--every", "5m"]),
        ("priority: ", [*add, "--every", "5m", "--priority", "x"]),
        ("'a b' is not a name", ["schedules", "add", "a b", "sync", "7", "--every", "5m"]),
        (
            "a schedule 'nightly' already",
            ["schedules", "add", "nightly", "sync", "7", "--every=5m"],
        ),
        ("days: ", ["schedules", "preview", "nightly", "--days", "0"]),
        *(
            ("there is no schedule 'gone'", ["schedules", verb, *known, "gone"])
            for verb in ("pause", "resume", "run", "reset", "remove", "preview")
            for known in ([["nightly"], []] if verb in ("pause", "remove") else [[]])
        ),
    ]
    for part, args in wrong:
        assert part in scheduled.refused(2, *args), args
    scheduled.app = None
    unknown = scheduled.refused(2, "schedules", "add", "new", "report", "--every", "5m")
    assert "task: 'report' is not known" in unknown and "--force" in unknown
    assert scheduled.json("schedules") == before
    assert scheduled.json("list") == []
    scheduled.ok("schedules", "add", "new", "report", "--every", "5m", "--force")
    assert len(scheduled.json("schedules")) == 2


BACKOFFS = (
    *("5", '{"cap": "soon"}', '{"base": null, "cap": "soon"}', '{"base": null, "cap": []}'),
    *('{"base": 2, "cap": 5, "jitter": "x"}', '{"base": 0, "cap": 5}', '{"base": 2, "cap": -1}'),
    *('{"base": NaN, "cap": 5}', '{"base": null, "cap": Infinity}', '{"base": 2, "cap": 1e999}'),
)


@pytest.mark.parametrize(
    "options", ["5", "[]", "null", "[", *(f'{{"backoff": {each}}}' for each in BACKOFFS)]
)
def test_options_that_sql_has_broken_are_named_in_one_line(scheduled: Cli, options: str) -> None:
    scheduled.ok("schedules", "add", "sync-7", "sync", "7", "--every", "5m")
    store = Store(scheduled.url or "")
    with store.write() as connection:
        connection.execute(update(schedules).values(options=options))
    store.close()
    line = scheduled.refused(2, "schedules", "run", "sync-7")
    assert "options: " in line
    assert line.endswith("are not options of a task; remove the schedule, and add it again")
    assert scheduled.json("list") == []
    assert names(scheduled) == ["sync-7"]
