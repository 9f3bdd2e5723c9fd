"""`doctor`: what is wrong with a queue or will be, each finding with its remedy."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from jobqueue.doctor_findings import Finding, finding
from jobqueue.errors import JobQueueError, SchemaNewer, SchemaOutdated
from jobqueue.printable_text import listed
from jobqueue.records import counted
from jobqueue.store import queue_health
from jobqueue.store.database import Store
from jobqueue.store.migrate import refuse_newer
from jobqueue.store.queue_health import Facts
from jobqueue.store.schema import REVISION
from jobqueue.store.urls import as_text, redact, secrets_of


class Diagnosis(NamedTuple):
    """What was found, and how many checks were made."""

    findings: list[Finding]
    checks: int

    @property
    def sentence(self) -> str:
        """What was found, in short."""
        found = counted(len(self.findings), "finding") if self.findings else "nothing found"
        return f"{found}: {counted(self.checks, 'check')}"

    def to_json(self) -> dict[str, Any]:
        """The object that `doctor --json` prints."""
        return {"checks": self.checks, "findings": [each.to_json() for each in self.findings]}


def _present() -> datetime:
    return datetime.now(UTC)


def examine(
    store: Store,
    open_names: Sequence[str] | None = None,
    *,
    clock: Callable[[], datetime] = _present,
) -> Diagnosis:
    """Return what is wrong with a queue; reads indexes and a bounded number of rows.

    `open_names`: the names under which other hosts may do everything without a token, where that
    is known. `clock` gives this host's present instant.
    """
    found = _unusable(store)
    if found is not None:
        return Diagnosis([found], 1 if found.check == "database" else 2)
    findings: list[Finding] = []
    with store.read() as connection:
        facts = Facts(store, connection, clock)
        for check in queue_health.CHECKS:
            findings += check(facts)
        processes = len({(row.host, row.pid) for row in facts.alive})
    of_backend = store.backend.health_checks  # Outside of the snapshot, which they would meet.
    for look in of_backend:
        findings += look(store.engine, processes)
    checks = 2 + len(queue_health.CHECKS) + len(of_backend)
    if open_names is not None:
        findings += _exposed_web(open_names)
        checks += 1
    return Diagnosis(findings, checks)


def _exposed_web(names: Sequence[str]) -> Iterator[Finding]:
    if names:
        yield finding(
            "exposed_web",
            f"everybody who reaches this server as {listed(names)} may change jobs: it needs no "
            "token",
            "jobqueue web --token TEXT; or create_app(jobs, authorize=…)",
            names,
        )


def _unusable(store: Store) -> Finding | None:
    """Return why nothing can be asked of the database; None if it can."""
    try:
        revision = store.revision()
        if revision is None:
            said, remedy = f"there is no queue in {store}", "jobqueue db upgrade"
        elif revision != REVISION:
            refuse_newer(revision)
            said = f"the database has schema {revision}, this jobqueue needs {REVISION}"
            remedy = "jobqueue db upgrade"
        else:
            return None
    except (SchemaNewer, SchemaOutdated) as error:
        said, remedy = str(error), "jobqueue db check"
    except JobQueueError as error:  # Such as a server that is too old.
        return finding("database", str(error), "another database; then: jobqueue db check")
    except (SQLAlchemyError, OSError) as error:
        said = redact(str(getattr(error, "orig", None) or error), secrets_of(as_text(store.url)))
        reason = said.strip().partition("\n")[0] or type(error).__name__
        if store.backend.is_forbidden(error):
            said, remedy = "says", "give the role of the URL its grants: docs/roles.md"
        else:
            said, remedy = "cannot be reached", "check the URL, and that the server runs"
        said = f"the database {store} {said}: {reason}"
        return finding("database", said, f"{remedy}; then: jobqueue db check")
    return finding("schema", said, remedy)
