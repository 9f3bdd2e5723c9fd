"""The context variables of the program, of which each job begins with a copy."""

from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from decimal import Context as Decimals


class Surroundings:
    """The context of the program at the time when this is made. May be used from any thread."""

    def __init__(self) -> None:
        self._context = copy_context()
        # A copy of a context holds the same values, and decimal's can be changed in place.
        self._decimals: list[tuple[ContextVar[Decimals], Decimals]] = [
            (variable, value.copy())
            for variable, value in self._context.items()
            if isinstance(value, Decimals)
        ]
        with_decimals, without = self._with_decimals, self._context.copy
        self.copy: Callable[[], Context] = with_decimals if self._decimals else without
        """A context for one job: what is set in it is seen by no other."""

    def _with_decimals(self) -> Context:
        context = self._context.copy()
        for variable, value in self._decimals:
            context.run(variable.set, value.copy())
        return context
