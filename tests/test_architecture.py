"""The guard of the house's rules, read off the source with ast.

Each rule is a function from a tree of files, {path: source}, to the problems found; each has a test on the package, and one on a
bad example that proves that the rule can fail.
"""

import ast
import graphlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
Files = dict[str, str]
Rule = Callable[[Files], list[str]]

# From the ground up. A file imports from its own layer or lower ones, so that no import goes back up
# between folders. Where two patterns fit, the longer one holds. A new file must be placed here.
LAYERS: list[list[str]] = [
    [
        "errors",
        "optional_dependencies",
        "states",
        "backoff",
        "headers",
        "options",
        "job_changes",
        "new_jobs",
        "queue_switches",
        "records",
        "events",
        "error_groups",
        "doctor_findings",
        "literal_types",
        "loggers",
    ]
    + ["config", "key_options", "paths", "fork_guard", "os_signals", "polling", "printable_text"]
    + ["schedules/*"],
    ["serialization/*"],
    ["store/schema", "store/checks", "store/column_types", "store/indexes", "store/clock"]
    + ["store/fork_safety", "store/pool", "store/postgres_session"],
    ["store/notify/*"],
    ["store/dialects/*"],
    ["store/sql/*"],
    ["store/*"],
    ["tasks", "job", "enqueue_hooks", "schedules/scheduled_calls"],
    ["supervisor/*"],
    ["worker/service_thread", "worker/log_context", "worker/process_identity"]
    + ["worker/orphan_guard", "worker/signal_safe_event", "worker/connections", "worker/outage"]
    + ["worker/settings"],
    ["worker/handler/*"],
    ["logs", "worker/json_stderr", "worker/inflight", "worker/shared_poll"]
    + ["worker/capacity", "worker/lease_state", "worker/event_dispatcher"],
    ["worker/isolate/*"],
    ["worker/claim/*"],
    ["worker/execute/*"],
    ["worker/exit_conditions"],
    ["worker/upkeep/*"],
    ["worker/observe/*"],
    ["worker/complete/*"],
    ["worker/claim_and_complete"],
    ["worker/__init__", "worker/assembly", "worker/shutdown", "worker/worker"],
    ["queue", "job_verbs", "bulk_verbs", "redaction", "database_binding", "display"]
    + ["json_calls", "json_forms", "known_names", "__init__", "schedules/api", "overview"]
    + ["timeline", "job_search"]
    + ["task_list", "text_parsing"],
    ["alembic", "handler_spans", "opentelemetry", "prometheus", "sentry", "web/*"],
    ["cli/*"],
    ["testing/*", "cli/demo/*"],
    ["cli/commands/*"],
    ["cli/main", "__main__"],
]
# From this layer on, imports inside functions keep the start of the commands quick.
OUTER = LAYERS.index(["cli/*"]) - 1
OPTIONAL = {  # What may be imported inside a function below that, because it may not be installed.
    "pydantic",  # models as arguments
    "psycopg",  # the Postgres extra
    "asyncpg",  # the same, async
    "alembic",  # needed by `db upgrade` alone, slow to import
    "sqlalchemy.ext.asyncio",  # needs greenlet
    "pysqlite3",  # a newer SQLite, as an extra
}
DIALECTS = ("sqlite", "postgres")
KNOW_DIALECTS = [  # The only places whose code says which database it is on.
    *("config", "cli/*", "store/fresh_database"),
    *("store/schema", "store/checks", "store/column_types", "store/indexes", "store/clock"),
    *("store/dialects/*", "store/notify/*", "store/postgres_session", "store/migrate"),
    "store/urls",
]
STATEMENTS = {"select", "insert", "update", "delete", "text"}
KNOW_SQL = ["store/*"]
TEST_FILE_LINES = 500
FILE_LINES, FUNCTION_LINES, NESTING, EXPORTS = 400, 50, 4, 36

Function = ast.FunctionDef | ast.AsyncFunctionDef
LOOPS = (ast.For, ast.AsyncFor, ast.While)
BLOCKS = (*LOOPS, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)


# Reading the source

parse = cache(ast.parse)


@pytest.fixture(scope="module", autouse=True)
def parsed_once() -> Iterator[None]:
    """Eight rules read each file's tree. What is kept costs the garbage collector time in all later tests."""
    yield
    parse.cache_clear()


def package() -> Files:
    paths = sorted((ROOT / "jobqueue").rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


def files_of_tests() -> Files:
    paths = sorted((ROOT / "tests").rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}


def within(path: str, places: list[str]) -> bool:
    """Whether a file of the package is one of the places, or in one of them."""
    name = path.removeprefix("jobqueue/").removesuffix(".py")
    return any(fnmatch(name, place) for place in places)


@cache
def layer(path: str) -> int | None:
    fits = [
        (len(place), n)
        for n, places in enumerate(LAYERS)
        for place in places
        if within(path, [place])
    ]
    return max(fits)[1] if fits else None


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: str, tree: ast.AST) -> Iterator[tuple[int, str, str | None]]:
    """Every import as (line, module, name in it)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = PurePosixPath(path).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            yield from ((node.lineno, module, alias.name) for alias in node.names)


def graph(files: Files) -> dict[str, dict[str, int]]:
    """For each file, the files of the package that it imports, and in which line."""
    paths = {module_name(path): path for path in files}
    edges: dict[str, dict[str, int]] = {}
    for path, source in files.items():
        edges[path] = {}
        for line, module, name in imports(path, parse(source)):
            target = paths.get(f"{module}.{name}") or paths.get(module)
            if target and target != path:
                edges[path].setdefault(target, line)
    return edges


def nodes(files: Files, kind: type | tuple[type, ...]) -> Iterator[tuple[str, ast.AST]]:
    for path, source in files.items():
        yield from ((path, node) for node in ast.walk(parse(source)) if isinstance(node, kind))


# The rules


def unplaced(files: Files) -> list[str]:
    return [f"{path}: give it a place in LAYERS" for path in files if layer(path) is None]


def upward(files: Files) -> list[str]:
    return [
        f"{path}:{line}: layer {layer(path)} imports {target} of layer {layer(target)}"
        for path, targets in graph(files).items()
        for target, line in targets.items()
        if (layer(path) or 0) < (layer(target) or 0)
    ]


def circles(files: Files) -> list[str]:
    try:
        graphlib.TopologicalSorter(graph(files)).prepare()
    except graphlib.CycleError as error:
        return ["imports in a circle: " + " ← ".join(error.args[1])]
    return []


def hidden_imports(files: Files) -> list[str]:
    return [
        f"{path}:{line}: {module} is imported inside {function.name}()"
        for path, function in nodes(files, Function)
        if (layer(path) or 0) < OUTER
        for line, module, _ in imports(path, function)
        if not any(module == name or module.startswith(f"{name}.") for name in OPTIONAL)
    ]


def words_of_code(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name and every string that is not a docstring, with its line."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        for _, value in ast.iter_fields(node):
            for word in value if isinstance(value, list) else [value]:
                if isinstance(word, str) and id(node) not in docstrings:
                    yield getattr(node, "lineno", 0), word


def dialects(files: Files) -> list[str]:
    return [
        f"{path}:{line}: {word[:60]!r} says which database it is on"
        for path, source in files.items()
        if not within(path, KNOW_DIALECTS)
        for line, word in words_of_code(parse(source))
        if any(dialect in word.lower() for dialect in DIALECTS)
    ]


def statements(files: Files) -> list[str]:
    found = []
    for path, source in files.items():
        tree = parse(source)
        named = [(line, module, name) for line, module, name in imports(path, tree) if name]
        named += [
            (node.lineno, node.value.id, node.attr)  # sa.select, sqlalchemy.select
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if node.value.id in {"sa", "sqlalchemy"}
        ]
        found += [
            f"{path}:{line}: {module}.{name} belongs in store/"
            for line, module, name in named
            if module.partition(".")[0] in {"sqlalchemy", "sa"} and name in STATEMENTS
            if not within(path, KNOW_SQL)
        ]
    return found


def long_files(files: Files) -> list[str]:
    lengths = {path: len(source.splitlines()) for path, source in files.items()}
    return [f"{path}: {length} lines" for path, length in lengths.items() if length > FILE_LINES]


def long_test_files(files: Files) -> list[str]:
    lengths = {path: len(source.splitlines()) for path, source in files.items()}
    return [
        f"{path}: {length} lines; split it by behaviour"
        for path, length in lengths.items()
        if path.startswith("tests/") and length > TEST_FILE_LINES
    ]


def names_taken(files: Files) -> list[str]:
    first = {PurePosixPath(path).name: path for path in reversed(files)}
    return [
        f"{path}: {first[name]} has this name: pytest cannot collect both"
        for path in files
        if (name := PurePosixPath(path).name).startswith("test_") and first[name] != path
    ]


def length(function: Function) -> int:
    """The lines of a function without its decorators and its docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return function.end_lineno - function.lineno + 1 - docstring


def long_functions(files: Files) -> list[str]:
    return [
        f"{path}:{function.lineno}: {function.name}() has {length(function)} lines"
        for path, function in nodes(files, Function)
        if length(function) > FUNCTION_LINES
    ]


def depth(node: ast.AST, *, chained: bool = False) -> int:
    """How deep blocks are nested in a node; an elif is no deeper than its if, a function starts at 0."""
    inner = []
    for name, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        elif_only = name == "orelse" and isinstance(node, ast.If) and len(children) == 1
        inner += [
            depth(child, chained=elif_only and isinstance(child, ast.If))
            for child in children
            if isinstance(child, ast.AST) and not isinstance(child, Function)
        ]
    return max(inner, default=0) + (isinstance(node, BLOCKS) and not chained)


def deep_nesting(files: Files) -> list[str]:
    return [
        f"{path}:{function.lineno}: {function.name}() is nested {depth(function)} deep"
        for path, function in nodes(files, Function)
        if depth(function) > NESTING
    ]


def undocumented(files: Files) -> list[str]:
    return [
        f"{path}:{getattr(node, 'lineno', 1)}: {name} has no docstring"
        for path, source in files.items()
        for name, node in public(parse(source), module_name(path))
        if ast.get_docstring(node) is None
    ]


def public(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
    """A module or class, and the public classes, functions and methods in it, at any depth."""
    yield name, node
    for child in node.body:
        if not isinstance(child, ast.ClassDef | Function) or child.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator).split(".")[-1] for decorator in child.decorator_list}
        if isinstance(child, ast.ClassDef):
            yield from public(child, f"{name}.{child.name}")
        elif not decorators & {"overload", "override", "setter"}:
            yield f"{name}.{child.name}", child


def exports(files: Files) -> list[str]:
    tree = parse(files.get("jobqueue/__init__.py", ""))
    bound: set[str] = set()
    exported: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound |= {target.id for target in targets if isinstance(target, ast.Name)}
            if ast.unparse(targets[0]) == "__all__":
                exported = list(ast.literal_eval(node.value))
        elif isinstance(node, ast.ClassDef | Function):
            bound.add(node.name)
    visible = {name for name in bound if not name.startswith("_")}
    return [
        *(f"{name} is in __all__, and does not exist" for name in sorted(set(exported) - bound)),
        *(
            f"{name} can be imported, and is not in __all__"
            for name in sorted(visible - {*exported})
        ),
        *(["__all__ is empty"] if not exported else []),
        *([f"{len(exported)} names are exported"] if len(exported) > EXPORTS else []),
    ]


# The tests


def test_every_file_of_the_package_has_a_layer() -> None:
    assert unplaced(package()) == []


def test_a_file_imports_only_from_its_own_layer_or_lower_ones() -> None:
    assert upward(package()) == []


def test_imports_make_no_circle() -> None:
    assert circles(package()) == []


def test_below_the_command_line_only_optional_dependencies_are_imported_inside_a_function() -> None:
    assert hidden_imports(package()) == []


def test_only_the_backends_and_the_settings_know_the_names_of_the_databases() -> None:
    assert dialects(package()) == []


def test_statements_are_made_only_in_the_store_and_the_schema() -> None:
    assert statements(package()) == []


def test_no_file_is_longer_than_400_lines() -> None:
    assert long_files(package()) == []


def test_no_file_of_tests_is_longer_than_500_lines() -> None:
    assert long_test_files(files_of_tests()) == []


def test_each_file_of_tests_has_a_name_of_its_own() -> None:
    assert names_taken(files_of_tests()) == []


def test_no_function_is_longer_than_50_lines() -> None:
    assert long_functions(package()) == []


def test_no_function_is_nested_deeper_than_4_blocks() -> None:
    assert deep_nesting(package()) == []


def test_every_public_module_class_and_function_has_a_docstring() -> None:
    assert undocumented(package()) == []


def test_the_package_exports_what_can_be_imported_and_at_most_36_names() -> None:
    import jobqueue

    assert exports(package()) == []
    assert [name for name in jobqueue.__all__ if not hasattr(jobqueue, name)] == []


DEEP = "def f():\n" + "".join(f"{'  ' * n}if {n}:\n" for n in range(1, 6)) + "            pass\n"

BAD: list[tuple[Rule, Files]] = [
    (unplaced, {"jobqueue/newcomer.py": ""}),
    (upward, {"jobqueue/states.py": "from jobqueue.job import Job", "jobqueue/job.py": ""}),
    (
        upward,
        {"jobqueue/errors.py": "from jobqueue import store", "jobqueue/store/__init__.py": ""},
    ),
    (upward, {"jobqueue/store/a.py": "from ..queue import JobQueue", "jobqueue/queue.py": ""}),
    (
        upward,
        {
            "jobqueue/store/sql/a.py": "from jobqueue.store.jobs import Jobs",
            "jobqueue/store/jobs.py": "",
        },
    ),
    (
        upward,
        {
            "jobqueue/worker/claim/a.py": "from jobqueue.worker.complete import b",
            "jobqueue/worker/complete/b.py": "",
        },
    ),
    (
        upward,
        {
            "jobqueue/supervisor/a.py": "from jobqueue.worker.handler import context",
            "jobqueue/worker/handler/context.py": "",
        },
    ),
    (
        circles,
        {
            "jobqueue/store/a.py": "def f():\n  from jobqueue.store import b",
            "jobqueue/store/b.py": "import jobqueue.store.a",
        },
    ),
    (hidden_imports, {"jobqueue/job.py": "class A:\n  def f(self):\n    import json"}),
    (dialects, {"jobqueue/job.py": "url = 'SQLite:///x'"}),
    (dialects, {"jobqueue/job.py": "def f(is_postgres): pass"}),
    (dialects, {"jobqueue/job.py": "from jobqueue.store.dialects.sqlite import Backend"}),
    (dialects, {"jobqueue/job.py": "x = f'{a} on postgresql'"}),
    (statements, {"jobqueue/job.py": "from sqlalchemy import Table, select"}),
    (statements, {"jobqueue/job.py": "from sqlalchemy.dialects.mysql import insert as put"}),
    (statements, {"jobqueue/job.py": "import sqlalchemy as sa\nsa.text('SELECT 1')"}),
    (long_files, {"jobqueue/job.py": "\n" * 401}),
    (
        long_test_files,
        {"tests/queue/test_job.py": "\n" * 501, "tests/queue/test_map.py": "\n" * 500},
    ),
    (names_taken, {"tests/queue/test_job.py": "", "tests/cli/test_job.py": ""}),
    (long_functions, {"jobqueue/job.py": "async def f():\n" + "  pass\n" * 50}),
    (deep_nesting, {"jobqueue/job.py": DEEP}),
    (undocumented, {"jobqueue/job.py": "x = 1"}),
    (undocumented, {"jobqueue/job.py": "'Doc.'\nclass A:\n  'Doc.'\n  def f(self): pass"}),
    (exports, {"jobqueue/__init__.py": "import a, b\n__all__ = ['a']"}),
    (exports, {"jobqueue/__init__.py": "__all__ = ['Job']"}),
    (
        exports,
        {
            "jobqueue/__init__.py": "".join(f"a{n} = 1\n" for n in range(37))
            + f"__all__ = {[f'a{n}' for n in range(37)]}"
        },
    ),
]


@pytest.mark.parametrize(("rule", "files"), BAD)
def test_each_rule_can_fail(rule: Rule, files: Files) -> None:
    assert len(rule(files)) == 1


def test_each_rule_has_a_bad_example() -> None:
    signature = {"files": Files, "return": list[str]}
    rules = [
        rule for rule in globals().values() if getattr(rule, "__annotations__", 0) == signature
    ]
    assert {rule.__name__ for rule in rules} == {rule.__name__ for rule, _ in BAD}
