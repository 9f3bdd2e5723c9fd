"""The rows that statements take as one parameter: their columns, in order."""

from sqlalchemy import BigInteger, Double, Integer, Text

from jobqueue.clock import INSTANT
from jobqueue.store.backend import Columns

NEW: Columns = {
    "task": Text(),
    "queue": Text(),
    "priority": Integer(),
    "args": Text(),
    "tags": Text(),
    "delay": Double(),
    "at": INSTANT,
    "max_attempts": Integer(),
    "timeout": Double(),
    "backoff": Text(),
    "unique_key": Text(),
    "unique_until": Text(),
    "deadline": Double(),
}
SUCCESS: Columns = {"id": BigInteger(), "fence": BigInteger(), "result": Text()}
END: Columns = {
    "id": BigInteger(),
    "fence": BigInteger(),
    "state": Text(),
    "delay": Double(),
    "refund": Integer(),
    "snooze": Integer(),
    "reason": Text(),
    "crashes": Integer(),
    "own_crashes": Integer(),
}
PROGRESS: Columns = {
    "id": BigInteger(),
    "fence": BigInteger(),
    "progress": Double(),
    "message": Text(),
}
PAIRS: Columns = {"id": BigInteger(), "fence": BigInteger()}
