"""`make vendor`: fetches the files of jobqueue/web/static/vendor from the npm registry, and writes their hashes."""

import hashlib
import io
import os
import re
import tarfile
import tomllib
from functools import cache
from pathlib import Path
from urllib.request import urlopen

FOLDER = Path(__file__).parents[1] / "jobqueue/web/static/vendor"
REGISTRY = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")


@cache
def package(name: str, version: str) -> tarfile.TarFile:
    with urlopen(f"{REGISTRY}/{name}/-/{name}-{version}.tgz", timeout=60) as answer:
        return tarfile.open(fileobj=io.BytesIO(answer.read()))


def renew() -> None:
    index = FOLDER / "vendor.toml"
    text = index.read_text("utf-8")
    for file in tomllib.loads(text)["file"]:
        member = package(file["package"], file["version"]).extractfile(f"package/{file['path']}")
        assert member is not None
        content = member.read()
        (FOLDER / file["name"]).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        of_this = rf'(name = "{re.escape(file["name"])}"\n(?:.+\n)*?sha256 = ")[0-9a-f]*"'
        text = re.sub(of_this, rf'\g<1>{digest}"', text)
        print(f"{file['name']}: {file['package']} {file['version']}, {len(content):,} bytes")
    index.write_text(text, "utf-8")


if __name__ == "__main__":
    renew()
