"""The driver's bare INSERT and COMMIT of the same row into jobqueue's table: what a single enqueue could be at most."""

from bench.enqueue import ROW, bare
from bench.peer import roles

SETTINGS: dict[str, str] = {}


def single(url: str, total: int) -> float:
    connection, statement = bare(url)

    def insert(_: int) -> None:
        connection.execute(statement, ROW).fetchone()
        connection.commit()

    seconds = roles.one_by_one(insert, total)
    connection.close()
    return seconds
