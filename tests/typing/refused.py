"""What a type checker must refuse: an ignore that is not needed is an error (warn_unused_ignores)."""

from typing import assert_type

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, sessionmaker

from jobqueue import Job, JobQueue, current_job, exponential

jobs = JobQueue("sqlite:///app.db")


@jobs.task
def add(x: int, y: int) -> int:
    return x + y


@jobs.task(queue="mail")
def send(user_id: int, *, subject: str = "") -> None: ...


add.enqueue("2")  # type: ignore[call-arg, arg-type]
add.enqueue("2", 3)  # type: ignore[arg-type]
add.enqueue(2)  # type: ignore[call-arg]
add.enqueue(2, 3, 4)  # type: ignore[call-arg]
add.enqueue(2, z=3)  # type: ignore[call-arg]
add.enqueue()  # type: ignore[call-arg]
add.call("2", 3)  # type: ignore[arg-type]
add("2", 3)  # type: ignore[arg-type]
add.options(priority=1).enqueue("2", 3)  # type: ignore[arg-type]
send.enqueue(7, 8)  # type: ignore[call-arg, arg-type]
send.enqueue(7, subject=8)  # type: ignore[arg-type]
add.enqueue(2, 3, priority=1)  # type: ignore[call-arg]

add.options(priority="high")  # type: ignore[arg-type]
add.options(colour="red")  # type: ignore[call-arg]
add.options(max_attempts=None)  # type: ignore[arg-type]
add.options(backoff=5)  # type: ignore[arg-type]
jobs.task(queue=5)  # type: ignore[call-overload]
jobs.task(colour="red")  # type: ignore[call-overload]
exponential(base="2")  # type: ignore[arg-type]

result: str = add.enqueue(2, 3).result()  # type: ignore[assignment]
wrong: Job[str] = add.enqueue(2, 3)  # type: ignore[assignment]
add.name = "other"  # type: ignore[misc]
jobs.enqueue_many([add])  # type: ignore[arg-type]
jobs.list(state="faild")  # type: ignore[arg-type]
jobs.get("7")  # type: ignore[arg-type]
jobs.cancel("7")  # type: ignore[arg-type]


def transactions(engine: Engine, maker: sessionmaker[Session], session: AsyncSession) -> None:
    add.within(engine)  # type: ignore[arg-type]
    add.within(maker)  # type: ignore[arg-type]
    jobs.enqueue_many([add.call(1, 2)], within=session)  # type: ignore[arg-type]
    current_job().finish_within(session)  # type: ignore[arg-type]
    current_job().tell(ValueError)  # type: ignore[attr-defined]


async def from_asyncio(session: Session) -> None:
    await current_job().afinish_within(session)  # type: ignore[arg-type]
    await add.aenqueue("2", 3)  # type: ignore[arg-type]
    assert_type(await add.enqueue(2, 3), str)  # type: ignore[assert-type]
