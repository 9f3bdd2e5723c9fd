"""docs/dashboard.md is true: its program runs, and its pages are those of the code."""

import re
from pathlib import Path
from typing import Any

from jobqueue.web.dashboard import PAGES
from jobqueue.web.pages import jobs as jobs_pages
from tests.web.conftest import Client

PAGE = (Path(__file__).parents[3] / "docs/dashboard.md").read_text("utf-8")


def test_the_pages_are_those_of_the_code() -> None:
    documented = set(re.findall(r"^\| `(/[^`?]*)", PAGE, re.MULTILINE))
    paths = {page.path.replace("{id}", "7").replace("{name}", "mail") for page in PAGES}
    assert documented == {path for path in paths if not path.endswith(("/purge", "/remove"))}
    names = {"update": "Change"}
    assert all(f"*{names.get(verb, verb.capitalize())}*" in PAGE for verb in jobs_pages.VERBS)


def test_the_program_mounts_it_and_decides_who_may_do_what(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    names["jobs"].store.require_schema()
    from jobqueue.web import Server

    app = names["app"]
    app.has_token, app.release = False, list  # As the server asks of an app.
    with Server(app, port=0, grace=1) as server, Client(base_url=server.url) as client:
        answers = {
            user: client.get("/jobs/jobs", headers={"x-user": user} if user else {})
            for user in ("", "eve", "bob")
        }
        assert {user: answer.status_code for user, answer in answers.items()} == {
            "": 403,
            "eve": 200,
            "bob": 200,
        }
        assert "Retry…" in answers["bob"].text and "Delete…" not in answers["bob"].text
        assert "Retry…" not in answers["eve"].text
    names["jobs"].close()
