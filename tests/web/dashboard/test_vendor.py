"""What the pages load of others' work is what vendor.toml says, and small."""

import hashlib
import tomllib
from pathlib import Path

import pytest

from jobqueue.web.static_files import FOLDER

VENDOR = FOLDER / "vendor"


@pytest.mark.parametrize("folder", [VENDOR, Path(__file__).parent / "vendor"])
def test_each_file_is_the_one_that_its_hash_names(folder: Path) -> None:
    listed = tomllib.loads((folder / "vendor.toml").read_text("utf-8"))["file"]
    digests = {file["name"]: file["sha256"] for file in listed}
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "vendor.toml"
    }
    assert digests == found
    assert all(file["licence"] and file["version"] for file in listed)


def test_the_package_has_two_libraries_with_their_licences_in_less_than_150_kilobytes() -> None:
    listed = tomllib.loads((VENDOR / "vendor.toml").read_text("utf-8"))["file"]
    licences = {file["package"] for file in listed if file["path"] == "LICENSE"}
    assert licences == {file["package"] for file in listed} == {"htmx.org", "uplot"}
    assert sum(file.stat().st_size for file in VENDOR.iterdir()) < 150_000
