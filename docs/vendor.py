"""`make vendor`: fetches the files that each vendor.toml names from the npm registry, and writes their hashes."""

import hashlib
import io
import os
import re
import tarfile
import tomllib
from functools import cache
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).parents[1]
FOLDERS = [ROOT / "jobqueue/web/static/vendor", ROOT / "tests/web/dashboard/vendor"]
REGISTRY = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")


@cache
def package(name: str, version: str) -> tarfile.TarFile:
    with urlopen(f"{REGISTRY}/{name}/-/{name}-{version}.tgz", timeout=60) as answer:
        return tarfile.open(fileobj=io.BytesIO(answer.read()))


def renew(folder: Path) -> None:
    index = folder / "vendor.toml"
    text = index.read_text("utf-8")
    for file in tomllib.loads(text)["file"]:
        member = package(file["package"], file["version"]).extractfile(f"package/{file['path']}")
        assert member is not None
        content = member.read()
        (folder / file["name"]).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        of_this = rf'(name = "{re.escape(file["name"])}"\n(?:.+\n)*?sha256 = ")[0-9a-f]*"'
        text = re.sub(of_this, rf'\g<1>{digest}"', text)
        print(f"{file['name']}: {file['package']} {file['version']}, {len(content):,} bytes")
    index.write_text(text, "utf-8")


if __name__ == "__main__":
    for folder in FOLDERS:
        renew(folder)
