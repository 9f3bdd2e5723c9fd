"""The files of deploy/, read as their programs read them."""

import shlex
from collections.abc import Iterator
from configparser import RawConfigParser
from typing import Any

import yaml

from tests.pages import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
KUBERNETES: list[dict[str, Any]] = [
    *yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))
]
KEDA: list[dict[str, Any]] = [*yaml.safe_load_all((DEPLOY / "keda.yaml").read_text("utf-8"))]
OURS = [name for name, service in COMPOSE["services"].items() if service["image"] == "jobqueue-app"]
"""The services that run `jobqueue`."""


def unit(name: str) -> RawConfigParser:
    parser = RawConfigParser(comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string((DEPLOY / name).read_text("utf-8"))
    return parser


UNITS = {path.name: unit(path.name) for path in sorted(DEPLOY.glob("*.service"))}


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """The templates of pods, by the name of what makes them."""
    for document in KUBERNETES:
        template = document["spec"].get("template")
        if template is not None:
            yield document["metadata"]["name"], template["spec"]


def container(name: str) -> dict[str, Any]:
    ((found,),) = (pod["containers"] for of, pod in pods() if of == name)
    return dict(found)


def commands() -> dict[str, list[str]]:
    """What each file runs, without the word `jobqueue`."""
    found = {f"compose {name}": COMPOSE["services"][name]["command"] for name in OURS}
    for name, parsed in UNITS.items():
        program, *words = shlex.split(parsed["Service"]["ExecStart"])
        assert program.endswith("/bin/jobqueue")
        found[name] = words
    return found | {f"kubernetes {name}": container(name)["args"] for name, _ in pods()}


def option(command: list[str], name: str) -> str | None:
    """The value of `--name=value` in a command."""
    return dict(word.partition("=")[::2] for word in command).get(f"--{name}")
