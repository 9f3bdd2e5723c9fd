"""What the tests of handlers' ends share."""

from collections.abc import Callable

WARNING, ERROR = 30, 40


def ends(error: BaseException) -> Callable[[], None]:
    """A task that raises."""

    def boom() -> None:
        raise error

    return boom
