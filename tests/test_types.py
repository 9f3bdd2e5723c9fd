"""What mypy --strict and pyright say of the documentation, and of lines that are wrong on purpose."""

import ast
import inspect
import itertools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobqueue.options import OptionChanges, TaskOptions
from jobqueue.tasks import MapOptions
from jobqueue.worker.settings import WorkerOptions
from tests.test_readme import LOGGING, PROGRAMS, ROOT, python_of

pytestmark = pytest.mark.slow

PAGES = [*PROGRAMS, ROOT / "docs" / "http.md", LOGGING]
TYPING = [ROOT / "tests" / "typing" / name for name in ("api.py", "types_wrong.py")]
SAID_WRONG = re.compile(r"# (error|the type checker says so too)$", re.MULTILINE)
CONFIGURATION = '{"typeCheckingMode": "standard", "pythonVersion": "3.11", "include": ["."]}'


def checker(name: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", name, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_mypy_and_pyright_find_the_lines_that_are_said_to_be_wrong_and_no_others(
    tmp_path: Path,
) -> None:
    for page in PAGES:
        (tmp_path / f"page_{page.stem.lower()}.py").write_text(python_of(page), "utf-8")
    for program in [*(ROOT / "examples").glob("*.py"), *TYPING]:
        shutil.copy(program, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(CONFIGURATION, "utf-8")
    programs = sorted(tmp_path.glob("*.py"))
    expected = {
        (program.name, text.count("\n", 0, mark.start()) + 1)
        for program in programs
        for text in [program.read_text("utf-8")]
        for mark in SAID_WRONG.finditer(text)
    }
    interpreter = ("--pythonpath", sys.executable)
    with (
        checker("mypy", "--strict", *map(str, programs)) as mypy,
        checker("basedpyright", *interpreter, "--project", str(tmp_path)) as pyright,
    ):
        said = {"mypy": mypy.communicate()[0], "pyright": pyright.communicate()[0]}
    for name, output in said.items():
        found = re.findall(r"([^/\s]+\.py):(\d+):(?:\d+ -)? error: ", output)
        assert {(file, int(line)) for file, line in found} == expected, f"{name}:\n{output}"


@pytest.mark.parametrize("options", [OptionChanges, TaskOptions, MapOptions, WorkerOptions])
def test_editors_show_what_each_option_means(options: type) -> None:
    (kind,) = ast.parse(inspect.getsource(options)).body
    assert isinstance(kind, ast.ClassDef)
    for key, text in itertools.pairwise([*kind.body, None]):
        assert not isinstance(key, ast.AnnAssign) or isinstance(text, ast.Expr), ast.unparse(key)
