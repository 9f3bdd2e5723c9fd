"""The SQL of every statement, as files that a DBA can read and a reviewer can compare.

`pytest tests/store/test_golden_sql.py --rewrite-golden` writes them anew.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.engine import Dialect

from jobqueue.store.schema import attempts, workers
from jobqueue.store.dialects.base import COUNTED, Backend
from jobqueue.store.dialects.postgres import Postgres
from jobqueue.store.dialects.sqlite import Sqlite
from jobqueue.store.sql.lanes import lane_statements
from jobqueue.store.sql.paused import paused_statements
from jobqueue.store.sql.statements import statements
from jobqueue.store.sql.why import why_statements

FOLDER = Path(__file__).parent / "sql"
BACKENDS: dict[str, tuple[Backend, Dialect]] = {
    "sqlite": (Sqlite(), sqlite.dialect(paramstyle="named")),
    "postgresql": (Postgres(), psycopg.dialect(paramstyle="named")),
}
LANES = {f"lanes_{name}": name for name in vars(lane_statements(BACKENDS["sqlite"][0]))}
PAUSED = {f"paused_{name}": name for name in vars(paused_statements(BACKENDS["sqlite"][0]))}
WHY = {f"why_{name}": name for name in vars(why_statements())}
NAMES = {
    dialect: [*vars(statements(backend)), *LANES, *PAUSED, *WHY]
    for dialect, (backend, _) in BACKENDS.items()
}
ALL = [(name, dialect) for dialect, names in NAMES.items() for name in names]
# Statements whose columns are given at each execution.
GIVEN = {
    "append_counters": COUNTED,
    "append_error_counts": [
        *("error_id", "task", "error_type", "place", "message", "attempts", "failed")
    ],
    "record_attempts": [c.name for c in attempts.c if c.name != "finished_at"],
    "register": [c.name for c in workers.c if c.nullable or c.server_default is None],
}
for _name in ("id", "stopping_at"):
    GIVEN["register"].remove(_name)

WIDTH, MAX_DEPTH = 110, 4
CLAUSE = (
    "FROM|WHERE|ORDER BY|LIMIT|RETURNING|SET|VALUES|FOR UPDATE|ON CONFLICT|(?<!FOR )UPDATE|SELECT"
)
TOKENS = re.compile(
    r"(?P<text>'(?:[^']|'')*')|(?P<inner>(?:AS|FROM) \(SELECT\b)|(?P<open>\()|(?P<close>\))"
    rf"|(?P<clause> (?=(?:{CLAUSE})\b))|(?P<other>.)"
)
BREAKS = re.compile(r"'(?:[^']|'')*'|[()]|, | (?=(?:AND|OR|WHEN|ELSE)\b)")


def pretty(sql: str) -> str:
    """One clause a line; the SELECTs of a FROM and a WITH are indented, long lines wrapped."""
    lines = [""]
    inline = [0]  # for each SELECT that is open: its open parentheses that hold no such SELECT
    for match in TOKENS.finditer(re.sub(r"\s+", " ", sql)):  # No literal of ours has two spaces.
        indent = "    " * len(inline)
        if match["inner"]:
            lines[-1] += match[0].removesuffix("SELECT")
            lines.append(indent + "SELECT")
            inline.append(0)
        elif match["close"] and not inline[-1]:
            inline.pop()
            lines.append(indent[8:] + ")")
        elif match["clause"] and not inline[-1]:
            lines.append(indent[4:])
        else:
            inline[-1] += bool(match["open"]) - bool(match["close"])
            lines[-1] += match[0]
    return "\n".join(wrapped for line in lines for wrapped in wrap(line)) + ";\n"


def wrap(line: str, depth: int = 0) -> list[str]:
    """Break a long line at the commas and words of its outermost level, then of the next."""
    if len(line) <= WIDTH or depth == MAX_DEPTH:
        return [line]
    pieces, level, start = [], 0, 0
    for match in BREAKS.finditer(line):
        if match[0] in "()":
            level += 1 if match[0] == "(" else -1
        elif level == depth and match[0][0] in ", ":
            pieces.append(line[start : match.end()].rstrip())
            start = match.end()
    pieces.append(line[start:])
    indent = re.match(" *", line)[0] + "    "
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if len(lines[-1]) + 1 + len(piece) <= WIDTH:
            lines[-1] += " " + piece
        else:
            lines.append(indent + piece)
    return [wrapped for piece in lines for wrapped in wrap(piece, depth + 1)]


def source(name: str, dialect_name: str) -> str:
    """The SQL of a statement, with the parameters that are always the same written out."""
    backend, dialect = BACKENDS[dialect_name]
    made: Any = lane_statements(backend) if name in LANES else statements(backend)
    if name in PAUSED:
        made = paused_statements(backend)
    made = why_statements() if name in WHY else made
    statement = getattr(made, (LANES | PAUSED | WHY).get(name, name))
    compiled = statement.compile(dialect=dialect, column_keys=GIVEN.get(name))
    sql = str(compiled)
    for parameter, value in compiled.params.items():
        if not parameter.startswith("in_") and name not in GIVEN:
            literal = (
                "NULL" if value is None else f"'{value}'" if value == f"{value}" else f"{value}"
            )
            sql = re.sub(rf":{parameter}\b(::[A-Z]+)?", literal.replace("\\", r"\\"), sql)
    return re.sub(r"__\[POSTCOMPILE_(\w+)\]", r":\1", sql)


@pytest.mark.parametrize(("name", "dialect_name"), ALL)
def test_the_sql_of_a_statement_is_the_one_on_file(
    name: str, dialect_name: str, rewrite_golden: bool
) -> None:
    file = FOLDER / f"{name}.{dialect_name}.sql"
    sql = pretty(source(name, dialect_name))
    if rewrite_golden:
        FOLDER.mkdir(exist_ok=True)
        file.write_text(sql, "utf-8")
    assert file.exists(), f"{file} is missing: run pytest with --rewrite-golden"
    assert sql == file.read_text("utf-8"), f"{file} is stale: run pytest with --rewrite-golden"


def test_every_file_is_of_a_statement(rewrite_golden: bool) -> None:
    expected = {f"{name}.{dialect}.sql" for name, dialect in ALL}
    left_over = {file.name for file in FOLDER.iterdir()} - expected
    if rewrite_golden:
        for name in left_over:
            (FOLDER / name).unlink()
        left_over = set()
    assert left_over == set()


@pytest.mark.parametrize("dialect_name", BACKENDS)
def test_what_is_pretty_is_the_same_statement(dialect_name: str) -> None:
    """Layout changes white space and nothing else."""
    for name in NAMES[dialect_name]:
        sql = source(name, dialect_name)
        assert re.sub(r"\s+", "", pretty(sql)) == re.sub(r"\s+", "", sql) + ";"


@pytest.mark.parametrize(
    "name", ["insert", "succeed", "finish_within", "record_attempts", "counting"]
)
def test_what_may_run_on_a_connection_of_the_user_starts_with_a_word_that_opens_a_transaction(
    name: str,
) -> None:
    """The sqlite3 module opens one only before INSERT, UPDATE, DELETE and REPLACE."""
    sql = Sqlite.counting if name == "counting" else source(name, "sqlite")
    assert sql.split()[0] in ("INSERT", "UPDATE", "DELETE", "REPLACE")
