"""Fresh databases for tests: a copied SQLite file, or an emptied schema used by tests alone."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, delete, event, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateSchema, DropSchema

from jobqueue.errors import ConfigurationError
from jobqueue.store import migrate
from jobqueue.store.database import Store
from jobqueue.store.schema import PREFIX, jobs, meta, metadata
from jobqueue.store.testing import BorrowingStore
from jobqueue.store.urls import backend_of, masked, parse

_UNSYNCED = "PRAGMA synchronous=OFF"


class Databases(ExitStack):
    """The databases of a test run, each with the schema, deleted at its exit; for one thread.

    Stores are reused by one test after another, with the statements that SQLAlchemy has compiled.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folder: Path | None = None
        self._free: dict[URL | None, list[BorrowingStore]] = {}

    @contextmanager
    def fresh(self, given: str | URL | None) -> Iterator[BorrowingStore]:
        """Give an empty queue for the block.

        None: a new file, deleted afterwards. A server's URL: a new schema in its database, created
        once and emptied each time. A file's URL: that file, which must have no jobs. Raises
        ConfigurationError.
        """
        url = None if given is None else parse(given)
        free = self._free.setdefault(url, [])
        store = free.pop() if free else self._new(url)
        is_file = store.backend.single_writer
        if url is None:
            _replace(store.url, self._template())
        elif is_file:
            migrate.upgrade(url)
            _require_empty(store)
        else:
            _empty(store)
        try:
            yield store
        finally:
            if is_file:
                store.close()
            if url is None:
                _replace(store.url, None)
            free.append(store)

    def _new(self, url: URL | None) -> BorrowingStore:
        if url is None:
            folder = tempfile.mkdtemp(dir=self._template().parent)
            store = BorrowingStore(_url(Path(folder, "jobqueue.db")))
        elif backend_of(url).single_writer:
            store = BorrowingStore(url)
        else:
            store = BorrowingStore(self.enter_context(_schema(url)))
        if store.backend.single_writer:  # Tests need no durability against a loss of power.
            event.listen(store.engine, "connect", lambda driver, _: driver.execute(_UNSYNCED))
        self.callback(store.close)
        return store

    def _template(self) -> Path:
        """Return a file with the schema, to be copied."""
        if self._folder is None:
            self._folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="jobqueue-")))
            migrate.upgrade(_url(self._folder / "template.db"))
        return self._folder / "template.db"


@contextmanager
def _schema(url: URL) -> Iterator[URL]:
    """Make a schema for tests in a server's database, apart from all other tables; drop it at last.

    Gives the URL of the same database with the schema as its search path.
    """
    name = f"{PREFIX}test_{secrets.token_hex(6)}"
    own = parse(url.update_query_dict({"schema": name}))
    _execute(url, CreateSchema(name))
    try:
        migrate.upgrade(own)
        yield own
    finally:
        _execute(url, DropSchema(name, cascade=True))


def _execute(url: URL, statement: CreateSchema | DropSchema) -> None:
    backend = backend_of(url)
    engine = backend.engine(url, 1)
    try:
        with backend.writing(engine) as connection:
            backend.limit_lock_wait(connection)  # A test may have left a transaction open.
            connection.execute(statement)
    finally:
        engine.dispose()


def _url(path: Path) -> URL:
    return parse(URL.create("sqlite", database=str(path)))


def _replace(url: URL, template: Path | None) -> None:
    """Delete the file of a URL with its WAL and lock files; copy the template to its path."""
    file = Path(url.database or "")
    for old in file.parent.glob(f"{file.name}*"):
        old.unlink()
    if template is not None:
        shutil.copy(template, file)


def _empty(store: Store) -> None:
    """Delete all rows in a server's schema, except the queue's id in `meta`."""

    def work(connection: Connection) -> None:
        store.backend.limit_lock_wait(connection)  # An earlier test may have a transaction open.
        for table in reversed(metadata.sorted_tables):
            if table is not meta:
                connection.execute(delete(table))
        sequence = func.pg_get_serial_sequence(jobs.name, jobs.c.id.name)
        connection.execute(select(func.setval(sequence, 1, False)))  # As in a fresh file.

    try:
        store.transact(work)
    except OperationalError as error:
        error.add_note("Has a test before this one left a transaction open on the jobs' tables?")
        raise


def _require_empty(store: Store) -> None:
    with store.read() as connection:
        count = connection.execute(select(func.count()).select_from(jobs)).scalar_one()
    if count:
        raise ConfigurationError(
            f"{masked(store.url)} has {count} job(s): a test needs a database of its own, "
            "or none named, for a fresh file",
            field="url",
        )
