"""A function's arguments as JSON Schema, for clients without its code."""

import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from jobqueue.serialization import functions, models

Schema = dict[str, Any]
_Kind = inspect.Parameter
_BY_NAME = (_Kind.POSITIONAL_OR_KEYWORD, _Kind.KEYWORD_ONLY)
_DEFINITIONS = "#/$defs/{name}"


def arguments_schema(function: Callable[..., Any], name: str) -> Schema:
    """Return the schema of an object that has all arguments by name: of the `kwargs` of a call.

    What a schema cannot express is `{}`: a type that only code knows, or the whole where an
    argument has to be given by position.
    """
    hints = functions.annotations(function, name)
    parameters = inspect.signature(function).parameters
    required = [each.name for each in parameters.values() if _is_required(each)]
    if any(parameters[each].kind not in _BY_NAME for each in required):
        return {}
    definitions: dict[str, Schema] = {}
    of = {each: _schema(hints.get(each, Any), definitions) for each in parameters}
    others = [of[each] for each in of if parameters[each].kind is _Kind.VAR_KEYWORD]
    return {
        "type": "object",
        "properties": {each: of[each] for each in of if parameters[each].kind in _BY_NAME},
        "required": required,
        "additionalProperties": others[0] if others else False,
        **({"$defs": definitions} if definitions else {}),
    }


def _is_required(parameter: inspect.Parameter) -> bool:
    is_one = parameter.kind not in (_Kind.VAR_POSITIONAL, _Kind.VAR_KEYWORD)
    return is_one and parameter.default is parameter.empty


def _schema(hint: Any, definitions: dict[str, Schema]) -> Schema:
    """Return the schema of an annotation, and add what it refers to to the definitions."""
    found: dict[str, Schema] = {}
    try:
        (schema,), components = msgspec.json.schema_components(
            [hint], schema_hook=lambda kind: _of_model(kind, found), ref_template=_DEFINITIONS
        )
    except Exception:  # noqa: BLE001 - types of the user's may raise anything.
        return {}
    found.update(components)
    if any(definitions.get(each, found[each]) != found[each] for each in found):
        return {}  # Two types have one name.
    definitions.update(found)
    return schema


def _of_model(kind: type, found: dict[str, Schema]) -> Schema:
    if not models.is_model(kind):
        raise NotImplementedError  # As msgspec wants it of a hook that does not know a type.
    schema: Schema = dict(kind.model_json_schema(ref_template="#/$defs/{model}"))  # type: ignore[attr-defined]
    found.update(schema.pop("$defs", {}))
    return schema
