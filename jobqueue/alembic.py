"""For an application whose own alembic shares the database: leave jobqueue's tables alone.

In the application's `env.py`:

    from jobqueue.alembic import include_object

    context.configure(..., include_object=include_object)

Without it, `alembic revision --autogenerate` finds tables that the application's metadata does not
know, and proposes to drop them.
"""

from typing import Any

from jobqueue.store.schema import PREFIX


def include_object(
    object: Any,  # noqa: A002 - alembic's own names.
    name: str | None,
    type_: str,
    reflected: bool,  # noqa: ARG001, FBT001
    compare_to: Any,  # noqa: ARG001
) -> bool:
    """False for jobqueue's tables with all that is in them: for alembic's option of this name."""
    table = object if type_ == "table" else getattr(object, "table", None)
    owner = name if table is None else table.name
    return not str(owner).startswith(PREFIX)
