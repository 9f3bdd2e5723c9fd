"""What an attempt died of, made safe to store whatever the exception does."""

import traceback

from jobqueue.records import AttemptError
from jobqueue.worker.context import clean

MESSAGE_MAX = 16_384  # characters, of each of the two texts
TRACEBACK_MAX = 65_536
FRAMES_MAX = 100


class Described:
    """Mixed into an exception: it says itself what is recorded beside its message."""

    details: str | None = None
    """Instead of a traceback, which would be about our code."""

    final = False
    """True: another attempt would end the same, so that the job fails at once."""


def describe(error: BaseException, *, skip: int = 0) -> AttemptError:
    """Type, message and traceback (without locals, `skip` outer frames left out). Never raises."""
    try:
        message = str(error)
        assert isinstance(message, str)
    except BaseException as worse:  # noqa: BLE001 - a __str__ may do anything.
        message = f"<its message cannot be had: str() raised {type(worse).__name__}>"
    if isinstance(error, Described):
        details = None if error.details is None else clean(error.details)
    else:
        details = clean(cap(_traceback(error, skip), TRACEBACK_MAX))
    return AttemptError(
        clean(type(error).__qualname__)[:200], clean(cap(message, MESSAGE_MAX)), details
    )


def _traceback(error: BaseException, skip: int) -> str:
    frames = error.__traceback__
    for _ in range(skip):
        frames = frames.tb_next if frames is not None and frames.tb_next else frames
    try:
        return "".join(
            traceback.TracebackException(
                type(error),
                error,
                frames,
                limit=-FRAMES_MAX,
                compact=True,
                max_group_width=5,
                max_group_depth=3,
            ).format()
        )
    except BaseException as worse:  # noqa: BLE001
        return f"<the traceback cannot be had: {type(worse).__name__}>"


def cap(text: str, most: int) -> str:
    """The head and the tail of a text that is too long."""
    if len(text) <= most:
        return text
    half = most // 2 - 32
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
