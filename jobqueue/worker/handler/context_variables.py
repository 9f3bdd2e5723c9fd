"""The context variables of the program, of which each job begins with a copy."""

import decimal
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context


class ProgramContext:
    """A copy of the current context of the program. May be used from any thread."""

    def __init__(self) -> None:
        self._context = Context()
        # A copy of a context holds the same values, and decimal's can be changed in place.
        self._decimals: list[tuple[ContextVar[decimal.Context], decimal.Context]] = []
        for variable, value in copy_context().items():
            if not isinstance(value, decimal.Context):
                self._context.run(variable.set, value)
            elif not _is_default(value):  # Otherwise decimal makes one on demand.
                self._decimals.append((variable, value.copy()))
        with_decimals, without = self._with_decimals, self._context.copy
        self.copy: Callable[[], Context] = with_decimals if self._decimals else without
        """A context for one job: what is set in it is seen by no other."""

    def _with_decimals(self) -> Context:
        context = self._context.copy()
        for variable, value in self._decimals:
            context.run(variable.set, value.copy())
        return context


def _is_default(context: decimal.Context) -> bool:
    """Return True for a context with the default settings, whatever flags are set."""
    default = decimal.DefaultContext
    names = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "traps")
    return all(getattr(context, name) == getattr(default, name) for name in names)
