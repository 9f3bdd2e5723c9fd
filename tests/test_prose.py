"""The guard of the prose: comments, docstrings, messages and pages name things by the field's terms."""

import io
import re
import tokenize
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.test_architecture import ROOT, Files, package

BANNED = {  # Words of comments, docstrings, messages and pages, each with what to write instead.
    "so many|so much|so often|so long": "the number, and its unit",
    r"(?:is|are|was|were) no(?= \w)(?! (?:longer|more|less|later|fewer|larger|other|one)\b)": "not a",
    "anew|unasked": "again, without a notification",
    "whoever|nobody knows": "each …, any …, unknown",
    "bells?|doorbells?|ears?|mouths?|leash": "notifier, wake-up, listener, pipe, channel",
    "undertakers?|overseers?|keepers?|frontiers?|hoards?": "guard, watchdog, service, cursors",
    "vitals|in company": "health, other writers",
    "told|heard|believed|buried|last words|put down": "signalled, received, reaped, inserted",
}


def prose(path: str, source: str) -> Iterator[tuple[int, str]]:
    """The comments and strings of a program, or the text of a page, each with its first line."""
    if path.endswith(".md"):
        yield 1, re.sub(r"^```.*?^```$", _blank, source, flags=re.MULTILINE | re.DOTALL)
        return
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", None)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            yield token.start[0], re.sub(r"\{[^{}]*\}", "x", token.string)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def banned_words(files: Files) -> list[str]:
    banned = {
        re.compile(rf"\b(?:{words})\b".replace(" ", r"\s+"), re.IGNORECASE): better
        for words, better in BANNED.items()
    }
    found = []
    for path, source in files.items():
        for line, text in prose(path, source):
            plain = re.sub(r"`[^`\n]*`|\b[Tt]here\s+(?:is|are|was|were)\s+no\b", _blank, text)
            found += [
                f"{path}:{line + plain.count(chr(10), 0, match.start())}: {match[0]!r}: write {better}"
                for words, better in banned.items()
                for match in words.finditer(plain)
            ]
    return found


def pages() -> Files:
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sorted(paths)}


def test_prose_has_none_of_the_banned_words() -> None:
    assert banned_words(package() | pages()) == []


def begun_alike(files: Files) -> list[str]:
    """Lines of pages that begin as the line before them: a merge that kept both."""
    return [
        f"{path}: {line}"
        for path, source in files.items()
        for _, text in prose(path, source)
        for before, line in pairwise(text.splitlines())
        if before[:40] == line[:40] and len(line.strip()) > 40 and line[0] not in "|`"
    ]


def test_no_page_has_two_versions_of_a_line() -> None:
    assert begun_alike(pages()) == []
    assert begun_alike({"a.md": f"{'a' * 41}\n{'a' * 40}b\n| {'c' * 50}\n| {'c' * 50}"}) != []


BAD: list[Files] = [
    {"jobqueue/job.py": '"""Waits so\n    long. No\n    longer is no.\n\n    `so long`"""'},
    {"jobqueue/job.py": "x = f'{told} is no {x}'"},
    {"jobqueue/job.py": "told = is_no = 1  # WHOEVER\n"},
    {"docs/a.md": "There is no `bell`.\n\n```\nbell\n```\nIt is no queue."},
]


@pytest.mark.parametrize("files", BAD)
def test_each_kind_of_prose_can_fail(files: Files) -> None:
    assert len(banned_words(files)) == 1


@pytest.mark.parametrize("words", BANNED)
def test_each_group_of_banned_words_can_fail(words: str) -> None:
    example = re.sub(r"\(\?[:!=].*", "", words.replace("(?:is|are|was|were)", "is")).split("|")[0]
    assert len(banned_words({"jobqueue/job.py": f"# {example.replace('?', '')} x"})) == 1
