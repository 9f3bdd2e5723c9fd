"""The error of an app that cannot be imported: in one line, each place in it once."""

from pathlib import Path

import pytest

from tests.cli.conftest import Cli

QUEUE = "from jobqueue import JobQueue\njobs = JobQueue()\n"
APPS = {
    "two tasks of one name": "@jobs.task\ndef f(): ...\n@jobs.task(name='f')\ndef g(): ...\n",
    "two declarations": "jobs.queue('mail', limit=1)\n\njobs.queue('mail', limit=2)\n",
    "a name that is missing": "from jobqueue import no_such_name\n",
    "an error": "\n1 / 0\n",
}


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("text", APPS.values(), ids=APPS)
def test_an_error_at_import_names_each_place_once(offline: Cli, tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.py").write_text(QUEUE + text)
    message = offline.refused(2, "tasks", "--app", "broken:jobs")
    places = [word for word in message.replace("(", " ").replace(")", " ").split() if "py:" in word]
    places = [place.strip(";,") for place in places]
    assert len(places) == len(set(places)) >= 1, message
