"""Make text that comes from the data harmless to a terminal; lists, times and hints in messages."""

import difflib
import json
import math
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

# Controls (C0, DEL, C1), what reorders or hides text (bidi, zero width, tags, BOM), separators that
# a terminal may take for a new line, and surrogates, which no encoding can write.
_HARMFUL = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff"
)
_ONE_LINE = re.compile(f"[{_HARMFUL}]")
_MANY_LINES = re.compile(f"(?!\n)[{_HARMFUL}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape_controls(text: object) -> str:
    """Return the text on one line; characters that a terminal would act on are escaped."""
    return _ONE_LINE.sub(_escape, str(text))


def escape_lines(text: object) -> list[str]:
    """Return the lines of a text, each escaped; tabs become spaces."""
    return _MANY_LINES.sub(_escape, str(text).expandtabs(4)).split("\n")


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code <= 0xFF:  # noqa: PLR2004
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004


def listed(names: Sequence[object], most: int = 8) -> str:
    """Return the first names, `a, b, …`, for a message."""
    return ", ".join([*map(str, names[:most]), *(["…"] if len(names) > most else [])])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean a or b?`, or an empty text without a similar name."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def not_one(word: str, of: str, known: Collection[str]) -> str:
    """Return that a word is none of those that are known, for a message."""
    there = f"there are {', '.join(known)}" if known else "there are none here"
    return f"{word[:40]!r} is not {of}; {there}{did_you_mean(word, known)}"


def span(seconds: float) -> str:
    """Return a time as people say it: `3.2 s`, `41 min`, `3 h`, `2.5 days`."""
    for size, unit, decimals in ((86_400.0, "days", 1), (3600.0, "h", 1), (60.0, "min", 0)):
        if seconds >= 2 * size or (unit == "h" and seconds >= 0.99 * size):
            number = f"{seconds / size:.{decimals}f}"
            return f"{number.removesuffix('.0')} {unit}"
    if seconds >= 10:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    return f"{max(seconds, 0.0):.1f}".removesuffix(".0") + " s"


def escape_json(value: Any, *, ascii_only: bool = False, indent: int | None = None) -> str:
    """Return JSON text without control characters: in strings they are JSON's own escapes."""
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, allow_nan=False)
    except ValueError:  # A row that someone wrote with SQL may hold NaN.
        text = json.dumps(_without_nan(value), ensure_ascii=ascii_only, indent=indent)
    # json.dumps has escaped what is below a space; a new line in `text` is its own.
    return _MANY_LINES.sub(lambda match: json.dumps(match[0])[1:-1], text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
