"""Pydantic models as arguments and results: written under their fields' names, read by either name.

A program that defines a model has imported pydantic already; no other program pays for the import.
"""

import inspect
import sys
from functools import lru_cache
from typing import Any


def is_model(kind: Any) -> bool:
    """True for a class of pydantic's models."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def to_plain(value: Any) -> Any:
    """A model as plain JSON values."""
    by_alias = not _reads_names(value.__class__)
    return value.model_dump(mode="json", round_trip=True, warnings=False, by_alias=by_alias)


def from_json(kind: Any, text: bytes) -> Any:
    """Read a model. From JSON, so that a strict one still takes its instants from text."""
    if not _reads_names(kind):
        return kind.model_validate_json(text)
    # By its aliases too, since others than us enqueue jobs.
    return kind.model_validate_json(text, by_alias=True, by_name=True)


@lru_cache(maxsize=1024)
def _reads_names(kind: Any) -> bool:
    """True if the model can read a field that has an alias by its name: pydantic 2.11 and newer."""
    return "by_name" in inspect.signature(kind.model_validate_json).parameters
