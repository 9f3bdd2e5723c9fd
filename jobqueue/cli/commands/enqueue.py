"""`enqueue`: one job from the command line, or many from a file; `exec`: a command line."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from jobqueue import options
from jobqueue.cli import completion, params
from jobqueue.cli.call_arguments import Value, guess_call, split
from jobqueue.cli.commands.jobs import await_all, print_end, require_success
from jobqueue.cli.context import CliContext, Command, pass_cli
from jobqueue.cli.errors import CliError
from jobqueue.cli.params import flag, option, whole_option
from jobqueue.cli.streams import echo
from jobqueue.config import WORKER
from jobqueue.display import ago
from jobqueue.errors import InvalidArguments, InvalidOption, JobNotFound, SchemaOutdated, invalid
from jobqueue.job import Job
from jobqueue.json_calls import find_task, make_call
from jobqueue.json_forms import job_json, with_attempts
from jobqueue.known_names import names_of
from jobqueue.printable_text import did_you_mean, listed
from jobqueue.serialization.json_values import parse_json
from jobqueue.states import WAITING
from jobqueue.store.names import names_in_use
from jobqueue.tasks import Call, Registry
from jobqueue.worker.execute.exec_task import EXEC as EXEC_TASK
from jobqueue.worker.execute.exec_task import NAME as EXEC

_DUE_OPTIONS = [
    option("--delay", "TIME", "Run after this time: 90 (seconds), 5m, 2h or 7d."),
    option("--at", "INSTANT", "Run at this time, such as 2026-12-24T18:00+01:00."),
]
_CALL_OPTIONS = [
    option(
        "--queue", "NAME", "Queue of the job. [default: the task's, or default]", completion.queues
    ),
    whole_option("--priority", "Priority; smaller runs sooner. [default: the task's, or 0]"),
    whole_option("--max-attempts", "Number of attempts. [default: the task's, or 10]"),
    option("--timeout", "TIME", "Time that one attempt may take. Of a wait: --wait-timeout."),
    option("--deadline", "TIME", "Time in which the job must end, waits and retries included."),
    option("--expires", "TIME", "Cancel the job if it has not begun within this time."),
    option("--unique-key", "KEY", "Enqueue nothing while a job with this key exists."),
    option(
        "--unique-until",
        "WHEN",
        "Hold the key until the job is finished (default), started or deleted.",
        completion.words("deleted", "finished", "started"),
    ),
    option(
        "--on-conflict",
        "WHAT",
        "Where a waiting job holds the key: ignore (default), replace it, or reschedule it.",
        completion.words("ignore", "replace", "reschedule"),
    ),
    option("--debounce", "TIME", "Run this time after the last enqueue with the key."),
    option("--max-wait", "TIME", "With --debounce: run at most this time after the first enqueue."),
    flag("--rerun", "Where a running job holds the key: run once more when it has ended."),
    option(
        "--tag tags", "NAME", "Tag of the job; may be repeated.", completion.tags, multiple=True
    ),
    option(
        "--header headers",
        "KEY=VALUE",
        "Header of the job, a text for middleware; may be repeated.",
        multiple=True,
    ),
    option("--concurrency-key", "KEY", "Count the job against the limit of this key."),
    whole_option(
        "--concurrency-limit", "Jobs of the key that may run at once, in the whole fleet."
    ),
    flag("--strict", "Run jobs of the key in order, also between attempts."),
    option("--weight", "W", "Share of the key in a fair queue. [default: 1]", type=params.number),
]
_WAIT_OPTIONS = [
    flag("--wait waits", "Wait for the job to end; exit with 1 if it did not succeed."),
    option("--wait-timeout", "TIME", "Time to wait with --wait."),
]
_ARGUMENT_OPTIONS = [
    option("--args args_text", "JSON", "Positional arguments as a JSON array: '[2, 3]'."),
    option("--kwargs kwargs_text", "JSON", "Named arguments as a JSON object: '{\"x\": 2}'."),
]
argument_options = params.all_of(*_ARGUMENT_OPTIONS)
job_options = params.all_of(*_DUE_OPTIONS, *_CALL_OPTIONS, *_WAIT_OPTIONS)
call_options = params.all_of(*_CALL_OPTIONS, *_ARGUMENT_OPTIONS)
"""The options of a job that do not say when it is due."""


@click.command(cls=Command)
@click.argument("task", required=False, shell_complete=completion.tasks)
@click.argument("values", metavar="[VALUE | KEY=VALUE]...", nargs=-1)
@argument_options
@job_options
@option(
    "--from source",
    "FILE|-",
    "Enqueue one job per JSON line of a file, or of stdin for -.",
    completion.path("file"),
)
@pass_cli
@click.pass_context
def enqueue(context: click.Context, cli: CliContext, /, **given: Any) -> None:
    """Enqueue a job and print its id.

    A VALUE that is valid JSON is read as JSON, any other as text; with an app, the task's
    annotations decide. A KEY is an identifier, so http://a/?b=c is a VALUE. A line of --from is a
    JSON object with "task", and optionally "args", "kwargs" and the options below by name, such as
    "max_attempts".

    \b
      jobqueue enqueue add 2 3
      jobqueue enqueue send_mail ada@example.org subject="Hello" --delay 5m
      jobqueue enqueue add --args '[2, 3]' --wait
    """  # noqa: D301 - of click.
    if given["source"] is not None:
        from jobqueue.cli.commands.bulk import enqueue_from  # rich's progress bar is slow.

        _refuse_beside_from(context)
        note_unknown(cli, sorted(enqueue_from(cli, given["source"])))
        return
    if given["task"] is None:
        raise click.UsageError("Missing TASK", context)
    enqueue_one(cli, given, lambda: call_of(cli, given))


def note_unknown(cli: CliContext, names: Iterable[str]) -> None:
    """Warn of tasks that no worker knows: without an app any name is accepted."""
    if cli.json or cli.app is not None:
        return
    try:
        known = cli.monitor.known_by()
    except SQLAlchemyError:  # A courtesy: the jobs are written, whatever this role may read.
        return
    if unknown := [name for name in names if name != EXEC and not known[name]]:
        plural = len(unknown) > 1
        named = listed([*map(repr, unknown)])
        cli.note(
            f"enqueued in {cli.target}, but no worker knows the task{'s' if plural else ''} "
            f"{named} yet, and no app is named (--app) that {'they' if plural else 'it'} could be "
            "checked with"
        )


def enqueue_one(cli: CliContext, given: dict[str, Any], make: Callable[[], Call[Any]]) -> None:
    """Enqueue a call with the `job_options` given, say so, and wait if that is wanted."""
    wait_limit = _wait_limit(given["waits"], given["wait_timeout"])
    call = make()
    nearly = None if given["queue"] is None else _nearly(cli, given["queue"])
    job = cli.queue.enqueue_many([call])[0]
    if nearly is not None:
        cli.note(nearly)
    if given["waits"]:
        _wait(cli, job.id, call.task.name, created=job.created, limit=wait_limit)
    elif cli.json:
        cli.print_json(job_json(cli.jobs.redaction(job.record())) | {"created": job.created})
    else:
        echo(job.id)
        if job.created:
            note_unknown(cli, [call.task.name])
        elif (note := _about_holder(job, call)) is not None:
            cli.note(note)


def _about_holder(job: Job[Any], call: Call[Any]) -> str | None:
    """Return what became of the job that holds the unique key; None: the log says all of it.

    The log warns, as in any program, of a holder that is another call and stays one.
    """
    settings, became = call.settings, "; no new one was made"
    replaces = settings.on_conflict == "replace"
    with contextlib.suppress(SQLAlchemyError, JobNotFound):  # The role may be one that only writes.
        record = job.record()
        other = (record.task, record.args) != (call.task.name, call.args)
        if settings.on_conflict != "ignore" or settings.debounce is not None:
            if replaces and other:  # It could not be, or someone else was faster still.
                became = f"; its state is {record.state}, and it stays as it is"
            elif record.state not in WAITING:  # Perhaps it was changed, and has begun since.
                became = f"; its state is {record.state}"
            elif replaces:
                became = ", and was replaced"
            else:
                became = f"; it is due {ago(record.run_at)}"
        elif other:
            if not settings.rerun:
                return None
            became += ", and it keeps its arguments"
    return f"job {job.id} with that unique key was there{became}"


def _nearly(cli: CliContext, queue: str) -> str | None:
    """What to say of a queue that is new, and nearly called as one that is known."""
    known = names_of(Registry() if cli.app is None else cli.app.registry)
    with contextlib.suppress(SchemaOutdated):  # The first job may make the schema.
        known |= names_in_use(cli.store)
    near = "" if queue in known.queues else did_you_mean(queue, known.queues)
    return f"the queue {queue!r} is new{near}" if near else None


def _refuse_beside_from(context: click.Context) -> None:
    given = [
        parameter.opts[0]
        for parameter, value in params.given_options(context)
        if parameter.name != "source" and value not in (None, (), False)
    ]
    if given:
        shown = ", ".join("TASK" if name == "task" else name for name in given)
        raise InvalidOption(
            f"--from: takes everything from its lines; leave out {shown}", field="from"
        )


def _wait_limit(waits: bool, text: str | None) -> float | None:
    if text is None:
        return None
    if not waits:
        raise invalid("wait_timeout", "it needs --wait", text)
    return options.seconds(text, "wait_timeout")


_TEXTS = (
    *("queue", "delay", "at", "timeout", "deadline", "expires", "unique_key", "unique_until"),
    *("on_conflict", "debounce", "max_wait", "concurrency_key"),
)
"""Options that are texts on the command line."""


def changes_of(given: dict[str, Any]) -> dict[str, Any]:
    """The `job_options` that were given, as changes of a task's options."""
    changes: dict[str, Any] = {
        name: params.clean(given[name], name) for name in _TEXTS if given.get(name) is not None
    }
    numbers = ("priority", "max_attempts", "concurrency_limit", "weight")
    changes |= {name: given[name] for name in numbers if given[name] is not None}
    changes |= {name: True for name in ("strict", "rerun") if given[name]}
    if given["tags"]:
        changes["tags"] = given["tags"]
    if given["headers"]:
        changes["headers"] = params.key_values(given["headers"], "header")
    if "unique_until" in changes and "unique_key" not in changes:
        raise invalid("unique_until", "it says how long a --unique-key is held, and there is none")
    return changes


def call_of(cli: CliContext, given: dict[str, Any]) -> Call[Any]:
    """Return the call of TASK, its VALUEs and its options. Raises for what the app refuses."""
    app = cli.app
    task = find_task(None if app is None else app.registry, given["task"])
    changes = changes_of(given)
    args, kwargs = split(given["values"])
    exact_args = _exact(given["args_text"], "args", list, "'[2, 3]'")
    exact_kwargs = _exact(given["kwargs_text"], "kwargs", dict, "'{\"x\": 2}'")
    for exact, guessed, name in ((exact_args, args, "args"), (exact_kwargs, kwargs, "kwargs")):
        if exact is not None and guessed:
            kind = "VALUE" if name == "args" else "KEY=VALUE"
            raise InvalidArguments(f"--{name}: give it or {kind}, not both", field=name)
    if exact_args is not None and exact_kwargs is not None:
        return make_call(task, exact_args, exact_kwargs, changes)
    if exact_args is not None:
        args = [Value(None, value) for value in exact_args]
    if exact_kwargs is not None:
        kwargs = {key: Value(None, value) for key, value in exact_kwargs.items()}
    return guess_call(task, args, kwargs, changes, annotated=app is not None)


def _exact(text: str | None, name: str, kind: type, example: str) -> Any:
    if text is None:
        return None
    article = "an array" if kind is list else "an object"
    hint = f"give {article} between single quotes: --{name} {example}"
    try:
        value = parse_json(text, what=f"--{name}")
    except InvalidArguments as error:
        raise InvalidArguments(f"{error}; {hint}", field=name, value=text) from None
    if not isinstance(value, kind):
        raise InvalidArguments(f"--{name}: not {article}; {hint}", field=name, value=text)
    return value


def _wait(cli: CliContext, id_: int, task: str, *, created: bool, limit: float | None) -> None:
    if not cli.json:
        echo(id_)
        note_unknown(cli, [task])
    try:
        (job,) = await_all(cli, (id_,), limit)
    except CliError as problem:
        raise CliError(
            f"enqueued, but {problem.message}", field="wait_timeout", value=limit
        ) from None
    if cli.json:
        cli.print_json(with_attempts(cli.jobs, job) | {"created": created})
    else:
        print_end(job)
    require_success([job])


@click.command(EXEC, cls=Command, hints={click.NoSuchOption: "write the command after --"})
@click.argument(
    "argv",
    metavar="-- ARGV...",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=completion.path("file"),
)
@option(
    "--env variables",
    "KEY=VALUE",
    "Environment variable of the command; may be repeated.",
    multiple=True,
)
@option(
    "--cwd",
    "FOLDER",
    "Folder in which the command runs. [default: the worker's]",
    completion.path("dir"),
)
@job_options
@pass_cli
@click.pass_context
def exec_(context: click.Context, cli: CliContext, /, **given: Any) -> None:
    """Enqueue a command line and print its id.

    No shell reads it: each word is one argument. It is run by workers that were started with
    --allow-exec, in their environment without $JOBQUEUE_URL and $JOBQUEUE_TOKEN, and with
    $JOBQUEUE_JOB_ID, $JOBQUEUE_ATTEMPT and $JOBQUEUE_FENCE. Exit code 0 is success; the end of what
    it prints is the result, or part of the error.

    \b
      jobqueue exec -- pg_dump --file=/backup/app.sql app
      jobqueue exec --timeout 10m --cwd /srv/app -- ./import.sh 2026
      jobqueue exec --wait -- sh -c 'df -h | tail -n +2'
    """  # noqa: D301 - of click.
    if not given["argv"]:
        raise click.UsageError("Missing ARGV: write the command after --", context)
    enqueue_one(cli, given, lambda: _exec_call(given))
    if not (cli.json or given["waits"] or cli.monitor.known_by()[EXEC]):
        start = cli.as_typed(f"{WORKER} --allow-exec")
        cli.note(f"no worker runs commands yet; start one with: {start}")


def _exec_call(given: dict[str, Any]) -> Call[Any]:
    argv = [params.clean(word, "argv") for word in given["argv"]]
    if not argv[0]:
        raise invalid("argv", "the command is empty; write its name or path after --", "")
    variables = params.key_values(given["variables"], "env")
    named = {"env": variables, "cwd": given["cwd"] and params.clean(given["cwd"], "cwd")}
    return make_call(
        EXEC_TASK, argv, {name: value for name, value in named.items() if value}, changes_of(given)
    )
