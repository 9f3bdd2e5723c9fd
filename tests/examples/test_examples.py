"""Each program of examples/ is run as a reader would run it, and what it prints is looked at."""

import re
import signal
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
from sqlalchemy import create_engine, text

from jobqueue import JobQueue
from jobqueue.store.urls import parse
from tests.pages import ROOT, environment, named_by, outside

pytestmark = [pytest.mark.slow, pytest.mark.databases("sqlite")]

EXAMPLES = ROOT / "examples"
PROGRAMS = sorted(
    path.stem
    for path in EXAMPLES.glob("*.py")
    if path.stem != "first" and not path.stem.endswith("_tasks")
)


Command = Callable[..., list[str]]


ATTEMPT_ERRED = r"^(?:WARNING |ERROR )?.*\bjob \d+ \(\w+\)[^\n]*\nTraceback"


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command line of a program, where only that is installed which the page names."""
    python = environment(tmp_path_factory.mktemp("venv"), named_by(EXAMPLES / "README.md"))
    return lambda name, *arguments: [str(python), str(EXAMPLES / f"{name}.py"), *arguments]


@pytest.fixture
def run(url: str, tmp_path: Path, command: Command) -> Callable[..., list[str]]:
    """Runs a program in an empty folder; its lines."""

    def run(name: str, *arguments: str) -> list[str]:
        done = subprocess.run(
            command(name, *arguments),
            cwd=tmp_path,
            env={**outside(), "JOBQUEUE_URL": url},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        # A failed attempt is logged with its traceback, and nothing else has one.
        assert done.stderr.count("Traceback") == len(re.findall(ATTEMPT_ERRED, done.stderr, re.M))
        return done.stdout.splitlines()

    return run


def rows(url: str, statement: str) -> list[Any]:
    engine = create_engine(parse(url))
    with engine.connect() as connection:
        found = connection.execute(text(statement)).all()
    engine.dispose()
    return [tuple(row) for row in found]


def test_the_basic_pool_hands_back_each_result(run: Callable[..., list[str]]) -> None:
    first, *results, last = run("basic_pool")
    assert (first, last) == ("9 jobs are written down", "all results are in")
    squares = [line.partition(" (")[0] for line in results]
    assert sorted(squares) == [f"job {n}: the square is {n * n}" for n in range(1, 10)]


def test_the_context_pool_ends_jobs_early(run: Callable[..., list[str]]) -> None:
    in_time, too_slow, waiting, running, deadline = run("context_pool")
    assert in_time == "in time: counted to 5"
    assert too_slow == "too slow: failed: jobqueue.errors.AttemptTimeout"
    assert waiting == "waiting: cancelled after 0 attempts"
    assert re.fullmatch(r"running: cancelled at step \d+ of 100000", running)
    parent, child = map(float, re.findall(r"\d+\.\d+", deadline))
    assert 0 < child < parent <= 10


def test_the_elastic_pool_grows_with_each_burst_and_ends_small(
    run: Callable[..., list[str]],
) -> None:
    lines = run("elastic_pool")
    assert lines[-1] == "it ends with 2 slots"
    bursts = re.split(r".* burst \d: 60 jobs\n", "\n".join(lines))[1:]
    assert len(bursts) == 2
    for burst in bursts:
        changes = [(int(a), int(b)) for a, b in re.findall(r"slots: (\d+) -> (\d+)", burst)]
        sizes = [2, *(after for _, after in changes)]
        assert [before for before, _ in changes] == sizes[:-1]
        assert 2 < max(sizes) <= 6
        assert (min(sizes), sizes[-1]) == (2, 2)
        assert "waiting" in burst, "each decision says why"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_the_server_answers_at_once_and_stops_in_order(
    number: signal.Signals,
    url: str,
    tmp_path: Path,
    command: Command,
    wait_until: Callable[..., Any],
) -> None:
    with subprocess.Popen(
        command("http_server", "0"),
        cwd=tmp_path,
        env={**outside(), "JOBQUEUE_URL": url},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            site = server.stdout.readline().split()[-1]
            with urlopen(f"{site}/task/7", timeout=30) as answer:
                assert (answer.status, answer.read()) == (202, b'{"job": 1}')
            wait_until(lambda: b"task 7 is done" in urlopen(f"{site}/result/1", timeout=30).read())
            for path in ("result/99", "task/x", ""):
                with pytest.raises(HTTPError) as refused:
                    urlopen(f"{site}/{path}", timeout=30)
                assert refused.value.code == 404
                refused.value.close()
            for task in range(8):
                urlopen(f"{site}/task/{task}", timeout=30).close()
            server.send_signal(number)
            rest = server.stdout.read().splitlines()
            assert server.wait(60) == 0
        finally:
            server.kill()
    assert re.fullmatch(r"stopping: [0-3] jobs are running", rest[0])
    assert rest[1:] == ["stopped"]
    with pytest.raises(URLError):
        urlopen(f"{site}/task/1", timeout=30)
    with JobQueue(url) as jobs:
        states = [record.state for record in jobs.list()]
    assert len(states) == 9, "none was lost"
    assert set(states) <= {"succeeded", "available"}, "none was interrupted"


@pytest.mark.databases("sqlite", "postgres")
def test_thumbnails_come_in_order_through_a_bounded_queue(
    run: Callable[..., list[str]], url: str
) -> None:
    lines = run("thumbnails")
    assert [line.split()[1] for line in lines] == [f"image-{n:02}.thumb.png" for n in range(80)]
    bound = "SELECT max_pending FROM jobqueue_queues WHERE name = 'thumbs'"
    assert rows(url, bound) == [(50,)]


def test_thumbnails_of_a_folder_are_images(run: Callable[..., list[str]], tmp_path: Path) -> None:
    left, right = b"\xff\x00\x00", b"\x00\x00\xff"
    (tmp_path / "flag.ppm").write_bytes(b"P6\n32 32\n255\n" + (left * 16 + right * 16) * 32)
    assert run("thumbnails", str(tmp_path)) == ["  1 flag.thumb.png"]
    png = (tmp_path / "flag.thumb.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        chunk = png[at + 4 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length]) == (zlib.crc32(chunk),)
        chunks[chunk[:4]] = chunk[4:]
        at += 12 + length
    assert struct.unpack(">II", chunks[b"IHDR"][:8]) == (16, 16)
    assert zlib.decompress(chunks[b"IDAT"]) == (b"\0" + left * 8 + right * 8) * 16


def test_the_crawler_is_polite_and_goes_on_where_it_stopped(run: Callable[..., list[str]]) -> None:
    crawled: list[str] = []
    for pages in (20, 10, 0):
        *lines, summary = run("crawler")
        found = re.fullmatch(r"(\d+) pages, 0 of them twice, ([0-3]) at once at most", summary)
        assert found, summary
        assert int(found[1]) == len(lines) == pages
        crawled += [line.split()[0] for line in lines]
    assert sorted(crawled) == sorted(f"/page/{number}" for number in range(30))


@pytest.mark.databases("sqlite", "postgres")
def test_the_import_counts_each_file_once(run: Callable[..., list[str]], url: str) -> None:
    imported = [
        "2026-11-1.csv: 100 rows, imported now, attempt 1",
        "2026-11-2.csv: 100 rows, imported now, attempt 2",  # The first one was broken off.
        "2026-11-3.csv: 100 rows, imported now, attempt 1",
        "300 rows, 748.50 in all",
    ]
    assert run("nightly_import") == imported
    everything = "SELECT product, cents FROM nightly_import_sales ORDER BY cents"
    before = rows(url, everything)
    again = [line.replace("imported now", "was imported before") for line in imported]
    assert run("nightly_import") == again
    assert rows(url, everything) == before
    assert len(before) == 300


# What all of them have in common


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_says_what_it_shows_and_has_a_file_of_its_own(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text("utf-8")
    docstring = source.split('"""')[1]
    assert f"python examples/{name}.py" in docstring
    tasks = EXAMPLES / f"{name.removesuffix('s')}_tasks.py"  # What a child process is to import.
    source += tasks.read_text("utf-8") if tasks.exists() else ""
    assert f'os.environ.get("JOBQUEUE_URL", "sqlite:///{name}.db")' in source
    readme = (EXAMPLES / "README.md").read_text("utf-8")
    assert f"[{name}.py]({name}.py)" in readme
