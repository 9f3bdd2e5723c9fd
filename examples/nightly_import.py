"""A nightly import: each CSV file in one transaction, together with the success of its job.
Run it: python examples/nightly_import.py; run it again, and nothing is imported twice
(on nightly_import.db, or on the database in $JOBQUEUE_URL; the files are in ./inbox).
"""

import csv
import os
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, insert, select

from jobqueue import JobQueue, Task, current_job, fixed

url = os.environ.get("JOBQUEUE_URL", "sqlite:///nightly_import.db")
jobs = JobQueue(url)
# The same database. SQLAlchemy 2.0 takes psycopg2 for Postgres unless the driver is named.
engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
sales = Table(
    "nightly_import_sales",
    MetaData(),
    Column("product", String(50), nullable=False),
    Column("cents", Integer, nullable=False),
)


@jobs.task(max_attempts=5, backoff=fixed(0.1))
def import_file(path: str) -> int:
    with engine.begin() as connection, Path(path).open(encoding="utf-8", newline="") as file:
        lines = csv.DictReader(file)
        rows = [{"product": line["product"], "cents": int(line["cents"])} for line in lines]
        connection.execute(insert(sales), rows)
        if path.endswith("-2.csv") and current_job().attempt == 1:
            raise ConnectionError("the plug is pulled half-way")  # The transaction is rolled back.
        current_job().finish_within(connection, result=len(rows))  # Both are committed, or neither.
    return len(rows)


def once(path: Path) -> Task[[str], int]:
    """Hold the key while the job's row exists, so that the same file gets no second job."""
    return import_file.options(unique_key=f"import {path.name}", unique_until="deleted")


def write_files(inbox: Path) -> None:
    """Create the files of one day."""
    inbox.mkdir(exist_ok=True)
    for day in range(1, 4):
        lines = [f"product-{number},{100 * day + number}\n" for number in range(100)]
        (inbox / f"2026-11-{day}.csv").write_text("product,cents\n" + "".join(lines), "utf-8")


def main() -> None:
    inbox = Path("inbox")
    write_files(inbox)
    sales.metadata.create_all(engine)
    handles = {path.name: once(path).enqueue(str(path)) for path in sorted(inbox.glob("*.csv"))}
    with jobs.worker(concurrency=2):
        for name, job in handles.items():
            what = "imported now" if job.created else "was imported before"
            print(f"{name}: {job.result(timeout=30)} rows, {what}, attempt {job.record().attempt}")
    with engine.connect() as connection:
        count, total = connection.execute(select(func.count(), func.sum(sales.c.cents))).one()
    print(f"{count} rows, {total / 100:.2f} in all")
    engine.dispose()
    jobs.close()


if __name__ == "__main__":
    main()
