"""What the demo asks the database in plain SQL, and how anyone can ask it again from a shell."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL

from jobqueue.store.database import Store


class Question(NamedTuple):
    """Something to ask, in SQL that stands between a shell's double quotes as it is."""

    title: str
    sql: str


WHO = """\
SELECT worker, count(*) AS jobs FROM jobqueue_jobs
WHERE queue = 'QUEUE' GROUP BY worker ORDER BY worker"""

ATTEMPTS = """\
SELECT a.worker, a.outcome, count(*) AS attempts
FROM jobqueue_attempts a JOIN jobqueue_jobs j ON j.id = a.job_id
WHERE j.queue = 'QUEUE' GROUP BY a.worker, a.outcome ORDER BY 1, 2"""

LONGEST_ON_SQLITE = """\
SELECT json_extract(result, '$.lines') AS lines,
  json_extract(args, '$.args[0]') AS module
FROM jobqueue_jobs WHERE queue = 'QUEUE'
ORDER BY lines DESC LIMIT 5"""

LONGEST_ON_POSTGRES = """\
SELECT (result::json ->> 'lines')::int AS lines,
  args::json #>> '{args,0}' AS module
FROM jobqueue_jobs WHERE queue = 'QUEUE'
ORDER BY lines DESC LIMIT 5"""


def questions(store: Store, queue: str) -> list[Question]:
    """What to ask about a queue."""
    longest = LONGEST_ON_SQLITE if store.backend.one_writer else LONGEST_ON_POSTGRES
    asked = {
        "who did how many": WHO,
        'which attempts did not succeed; those of the killed worker are "lost"': ATTEMPTS,
        "the longest modules": longest,
    }
    return [Question(title, sql.replace("QUEUE", queue)) for title, sql in asked.items()]


def ask(store: Store, question: Question) -> list[dict[str, Any]]:
    """Put a question to the database."""
    with store.read() as connection:
        return [dict(row) for row in connection.exec_driver_sql(question.sql).mappings()]


def command(url: URL, question: Question) -> str:
    """The shell command that asks the same."""
    if url.get_backend_name() == "sqlite":
        return f'sqlite3 -box {shlex.quote(str(url.database))} "\n{question.sql}"'
    return f'psql {shlex.quote(_without_password(url))} -c "\n{question.sql}"'


def removal(url: URL, queue: str, folder: Path) -> list[tuple[str, str]]:
    """The shell commands that remove what the demo leaves, each with a title."""
    database = url.database or ""
    if url.get_backend_name() == "sqlite" and Path(database).is_relative_to(folder):
        return [("the database and the logs of the workers", f"rm -r {shlex.quote(str(folder))}")]
    delete = f"jobqueue delete --queue {queue} --url {shlex.quote(_without_password(url))}"
    return [
        ("the jobs; statistics keep their counts", delete),
        ("the logs of the workers", f"rm -r {shlex.quote(str(folder))}"),
    ]


def _without_password(url: URL) -> str:
    """The URL for a command line. libpq finds a password in $PGPASSWORD or ~/.pgpass."""
    if url.get_backend_name() == "sqlite":
        return url.render_as_string()
    bare = URL.create(
        "postgresql", url.username, None, url.host, url.port, url.database, _public(url)
    )
    return bare.render_as_string()


def _public(url: URL) -> dict[str, str | tuple[str, ...]]:
    """The query of a URL without what libpq takes for secrets."""
    return {key: value for key, value in url.query.items() if "password" not in key}
