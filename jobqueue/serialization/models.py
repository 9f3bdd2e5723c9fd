"""Pydantic models as arguments and results: written in a form that reads back equal.

A program that defines a model has imported pydantic already; no other program pays for the import.
"""

import inspect
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

_BY_NAME = {"by_alias": False}
_BY_ALIAS = {"by_alias": True}
_FIELDS = ("model-field", "dataclass-field", "typed-dict-field")


def is_model(kind: Any) -> bool:
    """True for a class of pydantic's models."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def check(kind: Any) -> str | None:
    """Why values of a model could not come back equal because of its aliases; None if they can."""
    kind.model_rebuild(raise_errors=False)
    if not kind.__pydantic_complete__ or _reads_aliases(kind):
        return None  # Fields of classes that are yet to be defined cannot be looked at.
    if "by_name" not in inspect.signature(kind.model_validate_json).parameters:
        return (
            f"{kind.__qualname__} is written under other names than it is read by: give its fields "
            "the same alias in both directions, or use pydantic 2.11 or newer"
        )
    for fields in _field_groups(kind.__pydantic_core_schema__):
        for name in fields:
            taken = [other for other in fields if other != name and name in _heads(fields[other])]
            if taken:
                return (
                    f"{kind.__qualname__}: {name!r} is the name of one field and an alias of "
                    f"another, {taken[0]!r}: rename one of them"
                )
    return None


def to_plain(value: Any) -> Any:
    """A model as plain JSON values: under its aliases where it is read by them, else its names."""
    form = _BY_ALIAS if _reads_aliases(type(value)) else _BY_NAME
    return value.model_dump(mode="json", round_trip=True, warnings=False, **form)


def from_json(kind: Any, text: bytes) -> Any:
    """Read a model. From JSON, so that a strict one still takes its instants from text."""
    if _reads_aliases(kind):
        return kind.model_validate_json(text)
    # By its aliases too, since others than us enqueue jobs.
    return kind.model_validate_json(text, by_alias=True, by_name=True)


def _reads_aliases(kind: Any) -> bool:
    """True if every field is read under the name that it is written by, in all models within."""
    if not kind.__pydantic_complete__:
        kind.model_rebuild()  # Raises for what is not defined yet, and so keeps no answer.
    return _aliases_agree(kind)


@lru_cache(maxsize=1024)
def _aliases_agree(kind: Any) -> bool:
    return all(
        (field.get("serialization_alias") or name) in _read_as(name, field)
        for fields in _field_groups(kind.__pydantic_core_schema__)
        for name, field in fields.items()
    )


def _field_groups(schema: Any) -> Iterator[dict[str, Any]]:
    """The fields of each model, dataclass and typed dictionary within a schema, by their names.

    Each is marked with whether it is read by its name although it has an alias.
    """
    waiting: list[tuple[Any, dict[str, Any]]] = [(schema, {})]
    while waiting:
        node, config = waiting.pop()
        if isinstance(node, list | tuple):
            waiting.extend((item, config) for item in node)
        if not isinstance(node, dict):
            continue
        config = node.get("config") or config
        fields = node.get("fields")
        if isinstance(fields, list):  # of a dataclass
            fields = {field["name"]: field for field in fields if isinstance(field, dict)}
        if isinstance(fields, dict) and all(
            isinstance(field, dict) and field.get("type") in _FIELDS for field in fields.values()
        ):
            yield {name: {**field, "config": config} for name, field in fields.items()}
        waiting.extend((value, config) for key, value in node.items() if key != "metadata")


def _paths(field: dict[str, Any]) -> list[list[Any]]:
    """The aliases that a field is read by, each as the keys on the way to it."""
    alias = field.get("validation_alias") or []
    if isinstance(alias, str):
        return [[alias]]
    return [alias] if alias and isinstance(alias[0], str) else alias


def _heads(field: dict[str, Any]) -> set[str]:
    """The keys of the field's own level that its aliases begin with."""
    return {path[0] for path in _paths(field)}


def _read_as(name: str, field: dict[str, Any]) -> set[str]:
    """The keys that a field is read by, as its model is configured."""
    config = field["config"]
    keys = {path[0] for path in _paths(field) if len(path) == 1}
    if config.get("validate_by_alias") is False:
        return {name}
    by_name = config.get("validate_by_name") or config.get("populate_by_name")
    return keys | {name} if by_name or not _paths(field) else keys
