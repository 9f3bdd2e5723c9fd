"""Mistakes that plain SQL may make: the checks of the jobs table, and numbers that are none."""

import math
from typing import Any

from sqlalchemy import CheckConstraint, Dialect, Double, Integer
from sqlalchemy.types import TypeDecorator

from jobqueue.states import State

# SQLite accepts text as a number, and checks JSON cheaply. PostgreSQL prepares all checks of a
# table for each statement: these add 13 µs to a statement (measured), so it has none for JSON, nor
# for what its types refuse. On SQLite an IN costs 0.7 µs for each row that an UPDATE changes, the
# same as a chain of ORs 0.03 µs. `run_at` is not checked exactly: 2023-02-31, the hour 24 and a
# zone after the time pass. To refuse them takes `datetime(substr(run_at, 1, 19), '+0 days')` and
# two more functions: 0.6 µs more than the 6.2 µs in which SQLite inserts one row of many; a trigger
# takes 3.3 µs. Such a job stops no worker: it is due when its text is.
_IN_RANGE = "{0} >= '0001-01-02 00:00:00+00' AND {0} < '9999-12-31 00:00:00+00'"
_INTEGER = "typeof({0}) = 'integer' AND {0} BETWEEN {1} AND 2147483647"
_STATE = f"state_is_{'_'.join(State)}"
_CHECKS = {"timeout_is_more_than_0_and_at_most_316224000": "timeout > 0 AND timeout <= 316224000"}
_POSTGRES_CHECKS = {
    _STATE: f"state IN ({', '.join(repr(state.value) for state in State)})",
    "max_attempts_is_an_integer_of_at_least_1": "max_attempts >= 1",
    "run_at_is_in_the_years_1_to_9999": _IN_RANGE.format("run_at"),
    "created_at_is_in_the_years_1_to_9999": _IN_RANGE.format("created_at"),
}
_SQLITE_CHECKS = {
    _STATE: " OR ".join(f"state = {state.value!r}" for state in State),
    "max_attempts_is_an_integer_of_at_least_1": _INTEGER.format("max_attempts", 1),
    "priority_is_an_integer_of_32_bits": _INTEGER.format("priority", -(2**31)),
    "run_at_is_in_utc_like_2026_01_31_23_59_59": (
        "run_at GLOB '[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-5][0-9]*'"
        " AND datetime(run_at) IS NOT NULL"
    ),
    "run_at_is_in_the_years_1_to_9999": (
        "run_at >= '0001-01-02 00:00:00' AND run_at < '9999-12-31 00:00:00'"
    ),
    "args_is_json": "json_valid(args)",
    "tags_is_json": "tags IS NULL OR json_valid(tags)",
    "backoff_is_json": "backoff IS NULL OR json_valid(backoff)",
}


def checks() -> list[CheckConstraint]:
    """Return the constraints of the jobs table."""
    kinds = {None: _CHECKS, "postgresql": _POSTGRES_CHECKS, "sqlite": _SQLITE_CHECKS}
    return [
        CheckConstraint(condition, name=name).ddl_if(dialect=dialect)
        for dialect, checks in kinds.items()
        for name, condition in checks.items()
    ]


class Whole(TypeDecorator[int]):
    """An integer; for a value that is not one `otherwise`: no row may stop a worker."""

    impl = Integer
    cache_ok = True

    def __init__(self, otherwise: int | None = None) -> None:
        super().__init__()
        self.otherwise = otherwise

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Return the number."""
        return value if value is None or isinstance(value, int) else self.otherwise


class Seconds(TypeDecorator[float]):
    """Seconds, or another number above 0; None for a value that is not one, such as infinity."""

    impl = Double
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> float | None:  # noqa: ARG002
        """Return the number."""
        return value if isinstance(value, int | float) and 0 < value < math.inf else None
