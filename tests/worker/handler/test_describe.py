"""What an attempt died of, made safe to store whatever the exception does."""

import asyncio.base_events
import functools
import importlib
import json
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from jobqueue.worker.handler import run
from jobqueue.worker.isolate import child_main
from jobqueue.worker.handler.describe import MESSAGE_MAX, TRACEBACK_MAX, cap, describe


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def safe(text: str) -> bool:
    return "\0" not in text and text.encode() is not None


def test_type_message_and_traceback() -> None:
    described = describe(raised(ValueError("no")))
    assert (described.type, described.message) == ("ValueError", "no")
    assert described.traceback is not None
    assert described.traceback.startswith("Traceback (most recent call last)")
    assert "in raised" in described.traceback
    assert described.traceback.endswith("ValueError: no\n")


def test_a_nested_class_is_named_with_its_place() -> None:
    class Outer:
        class Inner(Exception):
            pass

    assert describe(Outer.Inner()).type.endswith("Outer.Inner")


class Refused(Exception):
    pass


def test_a_type_is_named_with_its_module_and_a_builtin_one_without() -> None:
    assert describe(Refused()).type == f"{__name__}.Refused"
    assert describe(TimeoutError()).type == "TimeoutError"


MAIL = """
import functools
import jobqueue.worker.handler.describe as ours

class Mailer:
    def send(self, how):
        if how == "own":
            raise OSError("no")
        if how == "library":
            functools.reduce(lambda *_: {}["no"], [1, 2])
        ours.cap(None, 1)

def outer(how):
    Mailer().send(how)
"""


@pytest.mark.parametrize(
    ("how", "signature"),
    [
        ("own", "work OSError shop_of_test/mail/__init__.py:Mailer.send"),
        ("library", "work KeyError shop_of_test/mail/__init__.py:Mailer.send.<locals>.<lambda>"),
        ("ours", "work TypeError shop_of_test/mail/__init__.py:Mailer.send"),
    ],
)
def test_a_signature_names_the_innermost_function_of_the_users_own(
    how: str, signature: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signatures = []
    for lines_before in ("", "\n\n\n"):  # The file has changed elsewhere.
        folder = tmp_path / str(len(lines_before)) / "shop_of_test" / "mail"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        (folder / "__init__.py").write_text(lines_before + MAIL)
        with monkeypatch.context() as patched:
            patched.syspath_prepend(str(folder.parents[1]))
            mail = importlib.import_module("shop_of_test.mail")
            for name in ("shop_of_test", "shop_of_test.mail"):
                patched.delitem(sys.modules, name)
            try:
                mail.outer(how)
            except Exception as error:
                signatures.append(describe(error).signature("work"))
    assert signatures == [signature] * 2


def test_a_signature_without_code_of_the_users_has_no_place() -> None:
    assert describe(ValueError("never raised")).signature("work") == "work ValueError"
    installed = through(f"{sysconfig.get_path('stdlib')}/site-packages/somebodys.py")
    try:
        raise_in(installed)
    except TypeError as error:
        error.__traceback__ = error.__traceback__.tb_next.tb_next
        assert describe(error).signature("work") == "work TypeError"


def raise_in(call: Any) -> None:
    call(None)


def through(file: str) -> Any:
    """A function of that file which calls another."""
    names: dict[str, Any] = {}
    exec(compile("def call(function, *args): function(*args)", file, "exec"), names)
    return names["call"]


OURS = through(str(Path(child_main.__file__)))
SEAM = through(str(Path(run.__file__)))
ASYNCIO = through(asyncio.base_events.__file__)
IMPORT = through("<frozen importlib._bootstrap>")
INSTALLED = through(f"{sysconfig.get_path('stdlib')}/site-packages/somebodys.py")


def boom() -> None:
    raise ValueError("no")


@pytest.mark.parametrize(
    ("calls", "files"),
    [
        ([OURS, SEAM, ASYNCIO, OURS], ["test_describe.py"]),
        (
            [OURS, IMPORT, INSTALLED, ASYNCIO],
            ["somebodys.py", "base_events.py", "test_describe.py"],
        ),
        ([SEAM, INSTALLED, SEAM], ["somebodys.py", "test_describe.py"]),
        ([], ["test_describe.py"]),
    ],
)
def test_a_traceback_begins_in_the_users_code(calls: list[Any], files: list[str]) -> None:
    def wrapped() -> BaseException:
        try:
            functools.reduce(
                lambda inner, call: functools.partial(call, inner), calls[::-1], boom
            )()
        except ValueError as error:
            # Without this function's own frame, which is none of ours.
            return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        raise AssertionError

    for error in (wrapped(), caused_by(wrapped())):
        text = describe(error).traceback
        first, *_ = (text or "").split("\n\n")
        assert re.findall(r'File ".*?([^/"]+)", line', first) == files


def test_frames_of_ours_are_left_out_where_the_package_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In site-packages, as the libraries of the user are, whose frames are shown."""
    monkeypatch.setattr("jobqueue.worker.handler.describe._PACKAGES", ("jobqueue",))
    error = raised(ValueError("no"))
    try:
        SEAM(OURS, boom)
    except ValueError as caught:
        error = caught.with_traceback(caught.__traceback__ and caught.__traceback__.tb_next)
    text = describe(error).traceback or ""
    assert re.findall(r'File ".*?([^/"]+)", line', text) == ["test_describe.py"]


def caused_by(cause: BaseException) -> BaseException:
    error = KeyError("yes")
    error.__cause__ = cause
    return error


def test_where_no_code_is_the_users_the_librarys_is_shown() -> None:
    error = raised(ValueError("no"))
    try:
        OURS(json.loads, "{")
    except ValueError as caught:
        error = caught.with_traceback(caught.__traceback__ and caught.__traceback__.tb_next)
    text = describe(error).traceback
    assert text is not None
    assert "child_main.py" not in text
    assert "in loads" in text


def test_an_error_that_was_never_raised_can_be_described() -> None:
    described = describe(ValueError("no"))
    assert described.traceback == "ValueError: no\n"


def test_causes_are_shown() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError as error:
        text = describe(error).traceback
    assert text is not None
    assert "KeyError: 'first'" in text
    assert "direct cause" in text


@pytest.mark.parametrize("what", [OSError("no"), SystemExit(1), KeyboardInterrupt(), 5, None])
def test_a_message_that_cannot_be_had(what: Any) -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            if isinstance(what, BaseException):
                raise what
            return what  # type: ignore[no-any-return]

    described = describe(raised(Rude()))
    assert described.message.startswith("<its message cannot be had: str() raised ")
    assert described.type.endswith("Rude")
    assert described.traceback


def test_what_no_database_stores_becomes_visible() -> None:
    described = describe(raised(ValueError("a\0b\ud800c")))
    assert described.message == "a\\x00b\\ud800c"
    assert described.traceback is not None
    assert safe(described.traceback)


def test_a_long_message_keeps_its_head_and_its_tail() -> None:
    described = describe(raised(ValueError("head" + "x" * 50_000_000 + "tail")))
    assert described.message.startswith("head")
    assert described.message.endswith("tail")
    assert len(described.message) <= MESSAGE_MAX
    assert described.traceback is not None
    assert len(described.traceback) <= TRACEBACK_MAX


def test_escapes_do_not_make_it_longer_than_the_bound() -> None:
    described = describe(raised(ValueError("\0" * 1_000_000)))
    assert len(described.message) <= 4 * MESSAGE_MAX


def test_a_group_of_ten_thousand_is_bounded() -> None:
    group = ExceptionGroup("all", [ValueError(f"error {n}") for n in range(10_000)])
    text = describe(raised(group)).traceback
    assert text is not None
    assert "error 0" in text
    assert "error 9999" not in text
    assert len(text) <= TRACEBACK_MAX


def test_the_frames_of_a_recursion_are_bounded_and_the_last_are_shown() -> None:
    def dig(depth: int) -> None:
        if depth == 0:
            raise ValueError("the bottom")
        dig(depth - 1)

    try:
        dig(sys.getrecursionlimit() // 2)
    except ValueError as error:
        text = describe(error).traceback
    assert text is not None
    assert "the bottom" in text
    assert text.count("\n") < 300


def test_cap_never_exceeds_its_bound() -> None:
    assert cap("x" * 100, 100) == "x" * 100
    for length in (101, 200, 10**6, 10**7):
        text = cap("a" + "x" * (length - 2) + "z", 100)
        assert len(text) <= 100
        assert text[0] == "a"
        assert text[-1] == "z"
