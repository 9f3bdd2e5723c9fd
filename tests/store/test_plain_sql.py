"""What plain SQL may write into the table of jobs stops no worker; each test on both databases."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from jobqueue.records import JobFilter
from jobqueue.states import State

INSERT = "INSERT INTO jobqueue_jobs (task, {0}) VALUES ('add', '{1}')"
EDGES = ["0001-01-02 00:00:00+00", "9999-12-30 23:59:59.999999+00"]
BEYOND = [
    "infinity",
    "-infinity",
    "9999-12-31 00:00:00+00",  # The year 10000 in a session east of Greenwich.
    "10000-01-01 00:00:00+00",
    "0001-01-01 23:59:59+00",
    "0044-03-15 12:00:00+00 BC",
]


def write(desk: Any, sql: str) -> None:
    with desk.store.write() as connection:
        connection.execute(text(sql))


@pytest.mark.parametrize("column", ["run_at", "created_at"])
@pytest.mark.parametrize("value", BEYOND)
def test_an_instant_that_python_cannot_hold_stops_no_claim(
    desk: Any, backend_name: str, column: str, value: str
) -> None:
    before = desk.add()
    if backend_name == "postgres":
        with pytest.raises(IntegrityError, match=f"jobqueue_jobs_{column}_in_range"):
            write(desk, INSERT.format(column, value))
    else:  # Any text is kept, and read as some instant.
        write(desk, INSERT.format(column, value))
    after = desk.add()
    holder = desk.worker()
    claims = desk.take(holder)
    assert {before, after} <= {claim.id for claim in claims}
    assert {*desk.finish(holder, *map(desk.succeeded, claims)).values()} == {State.SUCCEEDED}
    assert len(list(desk.jobs.find(JobFilter()))) == 2 + (backend_name == "sqlite")


@pytest.mark.parametrize("backend_name", ["postgres"])
@pytest.mark.parametrize("zone", ["UTC", "Etc/GMT-14", "Etc/GMT%2B12"])
def test_an_instant_that_is_allowed_can_be_read_in_every_time_zone(
    desk: Any, second_store: Any, zone: str
) -> None:
    for column in ("run_at", "created_at"):
        for value in EDGES:
            write(desk, INSERT.format(column, value))
    there = type(desk)(second_store(TimeZone=zone))
    assert len(there.take(there.worker())) == 4
    assert len(list(there.jobs.find(JobFilter()))) == 4


@pytest.mark.parametrize("backend_name", ["postgres"])
def test_no_job_can_be_made_to_have_such_an_instant(desk: Any) -> None:
    id_ = desk.add()
    with pytest.raises(IntegrityError, match="in_range"):
        write(desk, f"UPDATE jobqueue_jobs SET run_at = 'infinity' WHERE id = {id_}")
    assert desk.state(id_) is State.AVAILABLE


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ("2, 3", (None, None)),
        ("[2, 3]", (None, None)),
        ('{"args": [2, 3]}', (None, None)),
        ('{"args": 2, "kwargs": {}}', (None, {})),
        ('{"args": [2], "kwargs": []}', ([2], None)),
    ],
)
def test_arguments_of_another_form_are_not_known_and_hide_no_other_job(
    desk: Any, args: str, shown: Any
) -> None:
    other = desk.add()
    write(desk, f"INSERT INTO jobqueue_jobs (task, args) VALUES ('add', '{args}')")
    bad, good = [record.to_json() for record in desk.jobs.find(JobFilter())]
    assert (bad["args"], bad["kwargs"]) == shown
    assert good["id"] == other


@pytest.mark.parametrize(
    "tags", ["nightly", "nightly,mail", "7", "[[[[", '"nightly"', '{"nightly": 1}']
)
def test_tags_of_another_form_are_none_and_hide_no_other_job(desk: Any, tags: str) -> None:
    other = desk.add()
    write(desk, INSERT.format("tags", tags))
    bad, good = desk.jobs.find(JobFilter())
    assert bad.tags == ()
    assert good.id == other
