"""One cache of compiled statements for all engines of a test process.

SQLAlchemy compiles each statement once per engine, and each test makes engines of its own: without this, a quarter of the suite's
CPU time. What an engine compiles is the same for each of its kind: settings of the dialect, and the server's version.
"""

from collections.abc import MutableMapping
from functools import cached_property
from types import FunctionType
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.util import LRUCache

KEPT = 5_000
SETTINGS = (str, int, float, bytes, tuple, frozenset, type, FunctionType, type(None))


class CompiledStatements(MutableMapping[Any, Any]):
    """What one engine sees of it. The first part of a key is the engine's dialect."""

    shared: LRUCache[Any, Any] = LRUCache(KEPT)

    def __init__(self, dialect: Any) -> None:
        self._dialect = dialect

    @cached_property
    def kind(self) -> Any:
        settings = {
            name: value.__qualname__ if isinstance(value, FunctionType) else value
            for name, value in vars(self._dialect).items()
            if isinstance(value, SETTINGS)
        }
        return type(self._dialect), repr(sorted(settings.items()))

    def key(self, given: Any) -> Any:
        return (self.kind, *given[1:])

    def get(self, key: Any, default: Any = None) -> Any:
        return self.shared.get(self.key(key), default)

    def __getitem__(self, key: Any) -> Any:
        return self.shared[self.key(key)]

    def __setitem__(self, key: Any, compiled: Any) -> None:
        self.shared[self.key(key)] = compiled

    def __delitem__(self, key: Any) -> None:
        del self.shared[self.key(key)]

    def __iter__(self) -> Any:
        return iter(self.shared)

    def __len__(self) -> int:
        return len(self.shared)


def get(engine: Engine) -> Any:
    return vars(engine)["_compiled_cache"]


def put(engine: Engine, cache: Any) -> None:
    shared = None if cache is None else CompiledStatements(engine.dialect)
    vars(engine)["_compiled_cache"] = shared


def share() -> None:
    """Have all engines that are made from now on use it."""
    Engine._compiled_cache = property(get, put)
