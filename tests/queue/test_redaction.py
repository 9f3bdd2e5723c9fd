"""What a task hides is shown by no interface, and the row and the handler have it all the same."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import event
from sqlalchemy.orm import Session

from jobqueue import InvalidArguments, InvalidOption, JobQueue, every
from jobqueue.cli.main import cli
from jobqueue.records import JobFilter
from jobqueue.redaction import HIDDEN, Hidden, ShownJobs
from jobqueue.store.redactions import read_redactions

SECRET = "hunter2-sentinel"


@pytest.mark.parametrize(
    ("redact", "args", "kwargs", "shown"),
    [
        (("token",), [1, SECRET], {}, ([1, HIDDEN], {})),
        (("token",), [1], {"token": SECRET}, ([1], {"token": HIDDEN})),
        (("token",), [1], {}, ([1], {})),
        (("rest",), [1, 2, SECRET, SECRET], {}, ([1, 2, HIDDEN, HIDDEN], {})),
        (("other",), [1, 2], {"a": SECRET}, ([1, 2], {"a": HIDDEN})),
        (("x",), [1, 2], {"x": SECRET, "a": 3}, ([1, 2], {"x": HIDDEN, "a": 3})),
        (("token",), None, None, ([HIDDEN], {})),
        (("token",), {"token": SECRET}, [], ([HIDDEN], {})),
    ],
)
def test_arguments_are_hidden_however_they_are_given(
    redact: Any, args: Any, kwargs: Any, shown: Any
) -> None:
    def task(user: int, token: str = "", *rest: str, **other: str) -> None: ...

    assert Hidden.of(task, redact).apply(args, kwargs) == shown


def test_a_parameter_that_there_is_not_is_refused(tmp_path: Path) -> None:
    jobs = JobQueue(f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(
        InvalidOption, match="redact: 'tokn' is not a parameter; there are user, token"
    ):

        @jobs.task(redact=("tokn",))
        def login(user: int, token: str) -> None: ...

    with pytest.raises(InvalidOption, match="redact: give a list of names"):
        jobs.task(redact="token")(lambda token: None)


def test_no_call_changes_what_its_task_hides(jobs: JobQueue) -> None:
    @jobs.task(redact=("token",))
    def login(user: int, token: str) -> None: ...

    for names in ((), ("user",), ("token",)):
        with pytest.raises(InvalidOption, match="redact: it belongs to the task"):
            login.options(redact=names)


def test_no_interface_shows_it_with_and_without_the_app(url: str) -> None:
    got = []
    with JobQueue(url) as jobs:

        @jobs.task(redact=("token",))
        def login(user: int, token: str) -> None:
            got.append(token)

        waits = login.options(delay=3600).enqueue(7, SECRET)
        jobs.schedules.add("often", login.call(7, token=SECRET), every(minutes=5))
        login.enqueue(7, token=SECRET)
        with jobs.worker(poll=0.02, drain=True) as worker:
            worker.wait()
        assert (
            got == [SECRET] and SECRET in waits.record().args
        )  # The handler and the program have it.
        for registry in (jobs.registry, None):
            assert SECRET not in "".join(
                job.args for job in ShownJobs(jobs.store, registry).find(JobFilter())
            )

    def run(*words: str) -> str:
        result = CliRunner().invoke(cli, ["--url", url, *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    for words in (
        ("list",),
        ("list", "--json"),
        ("show", str(waits.id)),
        ("show", str(waits.id), "--json"),
        ("schedules", "--json"),
    ):
        shown = run(*words)
        assert SECRET not in shown, words
        assert "hidden" in shown, words
    assert json.loads(run("show", str(waits.id), "--json"))["args"] == [7, HIDDEN]


def test_a_schedule_of_before_its_task_hid_anything_does_not_differ_and_is_hidden(url: str) -> None:
    for redact in ((), ("token",)):
        with JobQueue(url) as jobs:

            @jobs.task(name="login", redact=redact)
            def login(token: str) -> None: ...

            @jobs.task(name="nightly", redact=redact, schedule=every(minutes=5))
            def nightly(token: str = SECRET) -> None: ...

            jobs.schedules.add("often", login.call(SECRET), every(minutes=5))
            with jobs.worker(drain=True) as worker:
                worker.wait()
            found = {each.name: each.differs for each in jobs.schedules}
            assert found == {"often": False, "nightly": False}
    shown = CliRunner().invoke(cli, ["--url", url, "schedules", "--json"]).output
    assert SECRET not in shown and HIDDEN in str(json.loads(shown))


@pytest.mark.parametrize("way", ["enqueue", "many", "within", "rolled back", "scheduled"])
def test_it_is_hidden_from_its_first_job_on_though_no_worker_has_started(
    jobs: JobQueue, engine: Any, url: str, way: str
) -> None:
    @jobs.task(redact=("token",))
    def login(user: int, token: str) -> None: ...

    if way == "enqueue":
        login.enqueue(7, SECRET)
    elif way == "many":
        jobs.enqueue_many([login.call(n, SECRET) for n in range(30)])
    elif way == "scheduled":
        jobs.schedules.add("often", login.call(7, token=SECRET), every(minutes=5))
    else:
        with Session(engine) as session:
            login.within(session).enqueue(7, token=SECRET)
            if way == "rolled back":
                session.rollback()
                login.within(session).enqueue(8, token=SECRET)
                login.within(session).enqueue(9, SECRET)
            session.commit()
    for words in (("list",), ("list", "--json"), ("schedules", "--json")):
        result = CliRunner().invoke(cli, ["--url", url, *words], catch_exceptions=False)
        assert result.exit_code == 0 and SECRET not in result.output, words
    shown = json.loads(result.output) or list(ShownJobs(jobs.store).find(JobFilter()))
    assert shown and all(HIDDEN in str(each) for each in shown)


def test_what_is_written_is_not_asked_for_again(jobs: JobQueue, engine: Any) -> None:
    @jobs.task(redact=("token",))
    def login(user: int, token: str) -> None: ...

    def statements(act: Any) -> list[str]:
        said: list[str] = []
        note = lambda _c, _k, statement, *_: said.append(statement)  # noqa: E731
        for each in (engine, jobs.store.engine):
            event.listen(each, "before_cursor_execute", note)
        act()
        for each in (engine, jobs.store.engine):
            event.remove(each, "before_cursor_execute", note)
        return [each for each in said if "jobqueue_redactions" in each]

    def within() -> None:
        with Session(engine) as session, session.begin():
            login.within(session).enqueue(1, SECRET)

    assert any("INSERT" in each for each in statements(within))
    assert not any("INSERT" in each for each in statements(within))
    assert statements(within) == statements(lambda: login.enqueue(2, SECRET)) == []


def test_a_worker_adds_names_and_takes_none_back(url: str) -> None:
    def hidden(function: Any, *redact: str) -> Any:
        with JobQueue(url) as jobs:
            jobs.task(name="login", redact=redact)(function)
            with jobs.worker(drain=True) as worker:
                worker.wait()
            read = ShownJobs(jobs.store).redaction.read()
            assert read == ShownJobs(jobs.store, jobs.registry).redaction.read()
            return read

    def first(user: int, token: str) -> None: ...

    def renamed(secret: str, user: int, *rest: str) -> None: ...

    assert hidden(first, "token") == {"login": Hidden(("token",), (1,))}
    assert hidden(first) == {"login": Hidden(("token",), (1,))}  # Of an older version.
    both = {"login": Hidden(("token", "secret", "rest"), (0, 1, 2), 2)}
    assert hidden(renamed, "secret", "rest") == both
    assert hidden(first, "token") == both


BROKEN = (
    *("", "not json", "null", '"abc"', '{"a": 1, "b": 2, "c": 3}', "[" * 9000, "9" * 5000),
    *('[["token"], [1]]', '[["token"], ["1"], null]', '[["token"], [true], null]'),
    *('["token", [1], null]', "[[1], [1], null]", '[["token"], [-1], null]', '[[], [], "0"]'),
)


def test_a_row_that_sql_has_broken_hides_all_and_stops_nothing(
    url: str, backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with JobQueue(url) as jobs:

        @jobs.task(redact=("token",))
        def login(user: str, token: str) -> None: ...

        id_ = login.options(delay=3600).enqueue(SECRET, SECRET).id
        jobs.schedules.add("often", login.call(SECRET, token=SECRET), every(minutes=5))
        broken = [*(f"'{text}'" for text in BROKEN), "x'ff00'"]
        if backend_name == "postgres":
            broken[-1] = "NULL"
            with jobs.store.write() as connection:
                connection.exec_driver_sql(
                    "ALTER TABLE jobqueue_redactions ALTER hidden DROP NOT NULL"
                )
        for value in broken:
            with jobs.store.write() as connection:
                connection.exec_driver_sql(f"UPDATE jobqueue_redactions SET hidden = {value}")
            for registry in (None, jobs.registry):
                (shown,) = ShownJobs(jobs.store, registry).find(JobFilter())
                assert SECRET not in shown.args and shown.args.count(HIDDEN) == 2, value
        before = read_redactions(jobs.store)
        assert len([each for each in caplog.records if each.levelname == "WARNING"]) == 1

    def run(*words: str) -> str:
        caplog.clear()
        result = CliRunner().invoke(cli, ["--url", url, *words], catch_exceptions=False)
        assert result.exit_code == (words[0] == "doctor"), result.output
        return result.output

    for words in (("list",), ("list", "--json"), ("show", str(id_)), ("schedules", "--json")):
        assert SECRET not in run(*words), words
        (said,) = (record for record in caplog.records if record.levelname == "WARNING")
        assert said.getMessage().startswith("login: all arguments are hidden"), words
    assert "all arguments of task login are hidden" in run("doctor")

    with JobQueue(url) as jobs:  # Producers and workers go on, and do not write over it.
        done = jobs.task(redact=("token",))(login.function).enqueue(SECRET, SECRET)
        with jobs.worker(poll=0.02, drain=True) as worker:
            worker.wait()
        assert done.state == "succeeded"
        assert read_redactions(jobs.store) == before
        for job in ShownJobs(jobs.store).find(JobFilter()):
            assert SECRET not in job.args


@pytest.mark.databases("postgres")
def test_a_row_that_is_deleted_while_it_is_added_to_is_written_anew(url: str) -> None:
    """As `doctor` advises for a broken one."""

    def login(token: str, other: str) -> None: ...

    with JobQueue(url) as jobs:
        jobs.task(redact=("token",))(login).enqueue(SECRET, SECRET)
    deleted = []

    def delete(_: Any, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("INSERT INTO jobqueue_redactions") and not deleted:
            with operator.store.write() as connection:
                done = connection.exec_driver_sql("DELETE FROM jobqueue_redactions")
            deleted.append(done.rowcount)

    with JobQueue(url) as jobs, JobQueue(url) as operator:
        event.listen(jobs.store.engine, "after_cursor_execute", delete)
        assert jobs.task(redact=("other",))(login).enqueue(SECRET, SECRET).created
        assert deleted == [1]
        (written,) = read_redactions(jobs.store).values()
        assert json.loads(written)[0] == ["other"]


def test_an_app_with_another_name_still_hides_the_written_one(url: str) -> None:
    with JobQueue(url) as jobs:

        @jobs.task(name="login", redact=("token",))
        def login(user: int, token: str) -> None: ...

        job = login.options(delay=3600).enqueue(7, token=SECRET)
        with jobs.worker(drain=True) as worker:
            worker.wait()
    with JobQueue(url) as jobs:

        @jobs.task(name="login", redact=("password",))
        def of_now(user: int, password: str) -> None: ...

        assert SECRET not in ShownJobs(jobs.store, jobs.registry).redaction(job.record()).args


def test_the_refusal_of_a_hidden_argument_names_it_and_not_its_value() -> None:
    jobs = JobQueue("sqlite:///never-made.db")

    @jobs.task(redact=("token", "other"))
    def login(user: int, token: int, **other: int) -> None: ...

    codec = login.codec
    for call in (
        lambda: codec.encode((1, SECRET), {}),
        lambda: codec.from_json([1], {"token": {"of": SECRET}}),
        lambda: codec.encode((1, 2), {"more": SECRET}),
        lambda: codec.decode(json.dumps({"args": [1, SECRET], "kwargs": {}})),
    ):
        with pytest.raises(InvalidArguments, match="its value is hidden") as refused:
            call()
        assert SECRET not in f"{refused.value} {refused.value.value!r}"
        assert refused.value.field is not None
    with pytest.raises(InvalidArguments, match="got 'seven'"):
        codec.encode(("seven", 2), {})


@pytest.mark.parametrize(
    "call",
    [
        lambda codec: codec.from_json([1, {"a": 47114242 << 64}], {}),
        lambda codec: codec.from_json([1], {"token": 47114242 << 64}),
        lambda codec: codec.from_json([1], {"token": {"a": SECRET + "\ud800"}}),
        lambda codec: codec.from_json([1, {}, 47114242 << 64], {}),
        lambda codec: codec.from_json({"token": SECRET}, {}),
        lambda codec: codec.encode((1, {SECRET: object()}), {}),
        lambda codec: codec.encode((1, {}, SECRET), {}),
        lambda codec: codec.encode((1, {}), {"api-key": SECRET}),
        lambda codec: codec.encode((1, {}), {"api-key" + 60 * "y": SECRET}),
        lambda codec: codec.decode(json.dumps({"args": [1, SECRET], "kwargs": {}, "more": 1})),
    ],
)
def test_no_refusal_has_a_hidden_value_in_its_words_its_path_or_its_value(call: Any) -> None:
    jobs = JobQueue("sqlite:///never-made.db")

    @jobs.task(redact=("token", "rest", "api-key"))
    def login(user: int, token: dict[str, int], *rest: int, **other: int) -> None: ...

    with pytest.raises(InvalidArguments) as refused:
        call(login.codec)
    said = f"{refused.value!s} {refused.value.field} {refused.value.value!r}"
    assert SECRET not in said
    assert str(47114242 << 64) not in said
    with pytest.raises(InvalidArguments, match=r"args\[0\]: integer beyond 64 bits"):
        login.codec.from_json([1 << 64, {}], {})
