"""The files of deploy/ fit the code and each other: commands, ports, paths of probes, times, names."""

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.cli.context import ENVIRONMENT
from jobqueue.options import seconds
from jobqueue.web import create_app
from jobqueue.web.server import STOP_TIMEOUT
from jobqueue.worker.observe.probe_server import health_pages
from jobqueue.worker.settings import WorkerSettings
from tests.deploy.files import COMPOSE, DEPLOY, KEDA, KUBERNETES, OURS, UNITS
from tests.deploy.files import commands, container, option, pods
from tests.deploy.validators import Run
from tests.pages import ROOT, text_of
from tests.test_readme import wrong_with

LINES = commands()
GRACE = {
    **{f"compose {name}": COMPOSE["services"][name].get("stop_grace_period") for name in OURS},
    **{name: unit["Service"]["TimeoutStopSec"] for name, unit in UNITS.items()},
    **{f"kubernetes {name}": pod.get("terminationGracePeriodSeconds") for name, pod in pods()},
}
PATHS = {
    "worker": set(health_pages(lambda: None)) | {"/metrics"},  # type: ignore[arg-type,return-value]
    "web": {"/healthz", "/readyz", "/metrics"},
}


@pytest.mark.parametrize("where", LINES)
def test_each_command_is_one_that_the_program_takes(where: str) -> None:
    assert wrong_with(shlex.join(["jobqueue", *LINES[where]])) is None


def test_there_is_a_command_of_each_kind_in_each_file() -> None:
    kinds = {(where.split()[0], words[0]) for where, words in LINES.items()}
    assert kinds == {
        *((file, kind) for file in ("compose", "kubernetes") for kind in ("db", "worker", "web")),
        ("jobqueue.service", "worker"),
        ("jobqueue-web.service", "web"),
    }


@pytest.mark.parametrize("where", [where for where, words in LINES.items() if words[0] != "db"])
def test_the_time_to_stop_is_longer_than_the_program_takes(where: str) -> None:
    takes = STOP_TIMEOUT
    if LINES[where][0] == "worker":
        given = option(LINES[where], "shutdown-timeout")
        takes = seconds(given or WorkerSettings().shutdown_timeout, "shutdown_timeout")
    assert seconds(str(GRACE[where]), where) >= takes + 5


@pytest.mark.databases("sqlite")
def test_probes_ask_for_paths_that_are_there_on_ports_that_are_served(url: str) -> None:
    with JobQueue(url) as jobs:
        routes = {route.path for route in create_app(jobs)._api.routes()}
    assert PATHS["web"] <= routes
    asked = []
    for name, pod in pods():
        [of] = pod["containers"]
        kind = of["args"][0]
        ports = {port["name"]: port["containerPort"] for port in of.get("ports", ())}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in of:
                got = of[probe]["httpGet"]
                asked.append((name, kind, got["path"], ports[got["port"]]))
    for name in OURS:
        test = COMPOSE["services"][name].get("healthcheck", {}).get("test", ())
        for port, path in re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", " ".join(test)):
            asked.append((name, COMPOSE["services"][name]["command"][0], path, int(port)))
    assert len(asked) == 7
    for name, kind, path, port in asked:
        assert path in PATHS[kind], name
        words = next(words for where, words in LINES.items() if where.endswith(f" {name}"))
        served = option(words, "port" if kind == "web" else "health-port")
        assert port == int(served or 0), name


def test_a_worker_under_kubernetes_answers_on_the_pods_address() -> None:
    words = container("jobqueue-worker")["args"]
    assert option(words, "probe-host") == "0.0.0.0"
    of = next(doc for doc in KUBERNETES if doc["metadata"]["name"] == "jobqueue-worker")
    scraped = of["spec"]["template"]["metadata"]["annotations"]
    assert scraped["prometheus.io/port"] == option(words, "metrics-port")
    assert scraped["prometheus.io/path"] in PATHS["worker"]


def test_every_setting_is_one_that_the_program_reads() -> None:
    known = {name for name, _ in ENVIRONMENT} | {"PGPASSWORD"}
    given = {name for name in OURS for name in COMPOSE["services"][name]["environment"]}
    given |= set(re.findall(r"^#?([A-Z_]+)=", text_of(DEPLOY / "jobqueue.env"), re.MULTILINE))
    given |= {each["name"] for _, pod in pods() for each in pod["containers"][0]["env"]}
    given |= set(re.findall(r"JOBQUEUE_\w+", text_of(DEPLOY / "Dockerfile")))
    assert given <= known
    substituted = set(re.findall(r"\$\{(\w+)", text_of(DEPLOY / "compose.yaml")))
    assert substituted == set(re.findall(r"^(\w+)=$", text_of(DEPLOY / "example.env"), re.M))


def test_services_start_once_the_migration_has_ended() -> None:
    services = COMPOSE["services"]
    assert services["migrate"]["command"] == ["db", "upgrade"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("worker", "web"):
        needs = {"migrate": {"condition": "service_completed_successfully"}}
        assert services[name]["depends_on"] == needs
    assert services["worker"]["deploy"]["replicas"] == 2


def test_no_container_has_rights_that_it_does_not_need() -> None:
    for name in OURS:
        service = COMPOSE["services"][name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    (user,) = re.findall(r"^USER (\d+):\d+$", text_of(DEPLOY / "Dockerfile"), re.MULTILINE)
    for name, pod in pods():
        of = pod["containers"][0]["securityContext"]
        assert pod["securityContext"]["runAsUser"] == int(user), name
        assert of["readOnlyRootFilesystem"] and not of["allowPrivilegeEscalation"], name
        assert not pod["automountServiceAccountToken"], name


def test_workers_of_one_host_may_look_whether_another_has_died() -> None:
    for name, unit in UNITS.items():
        assert not {"ProtectProc", "ProcSubset", "PrivateUsers", "PrivatePIDs"} & set(
            unit["Service"]
        ), name


def test_names_lead_from_one_document_to_another() -> None:
    by_kind = {(doc["kind"], doc["metadata"]["name"]): doc for doc in [*KUBERNETES, *KEDA]}
    labels = {
        name: doc["spec"]["template"]["metadata"]["labels"]
        for (kind, name), doc in by_kind.items()
        if kind == "Deployment"
    }
    for (kind, name), doc in by_kind.items():
        selector = doc["spec"].get("selector")
        if selector is not None:
            assert selector.get("matchLabels", selector) == labels[name], (kind, name)
    service = by_kind["Service", "jobqueue-web"]["spec"]["ports"][0]
    assert service["targetPort"] in {
        port["name"] for port in container("jobqueue-web")["ports"] if port["containerPort"]
    }
    scaled = by_kind["ScaledObject", "jobqueue-worker"]["spec"]
    assert ("Deployment", scaled["scaleTargetRef"]["name"]) in by_kind
    trigger = scaled["triggers"][0]
    assert ("TriggerAuthentication", trigger["authenticationRef"]["name"]) in by_kind
    slots = option(container("jobqueue-worker")["args"], "concurrency")
    assert trigger["metadata"]["targetQueryValue"] == slots
    keys = {
        (each["valueFrom"]["secretKeyRef"]["name"], each["valueFrom"]["secretKeyRef"]["key"])
        for _, pod in pods()
        for each in pod["containers"][0]["env"]
    }
    [auth] = by_kind["TriggerAuthentication", "jobqueue"]["spec"]["secretTargetRef"]
    assert (auth["name"], auth["key"]) in keys == {("jobqueue", "url"), ("jobqueue", "token")}
    assert auth["parameter"] == "connection"


def test_the_image_is_built_from_files_that_are_there_and_sent_to_the_builder() -> None:
    dockerfile = text_of(DEPLOY / "Dockerfile")
    ignored = text_of(DEPLOY / "Dockerfile.dockerignore").splitlines()
    sent = [line[1:] for line in ignored if line.startswith("!")]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert sorted(copied) == sorted(sent)
    needed = re.search(r"only-include = \[(.+)\]", text_of(ROOT / "pyproject.toml"))
    assert needed is not None
    for name in [*re.findall(r'"([^"]+)"', needed[1]), "migrations", "pyproject.toml"]:
        assert any(fnmatch(name, pattern) for pattern in sent), name
    assert "'/src[postgres,web]'" in dockerfile and 'ENTRYPOINT ["jobqueue"]' in dockerfile
    app = re.search(r"JOBQUEUE_APP=(\w+):(\w+)", dockerfile)
    assert app is not None and (DEPLOY / f"{app[1]}.py").is_file()


# By the validators of these programs, where this machine has them


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_unit(name: str, tmp_path: Path, validator: Run) -> None:
    text = text_of(DEPLOY / name)
    # Its program and its user are not on this machine.
    text = re.sub(r"/srv/app/.venv/bin/jobqueue", "/bin/true", text)
    (tmp_path / name).write_text(text, "utf-8")
    said = validator("systemd-analyze", "verify", "--man=no", str(tmp_path / name))
    assert name not in said, said


@pytest.mark.parametrize("file", ["kubernetes.yaml"])
def test_the_documents_fit_the_schema_of_kubernetes(file: str, validator: Run) -> None:
    validator("kubernetes-validate", "--strict", str(DEPLOY / file))


def test_compose_takes_its_file(validator: Run, monkeypatch: Any) -> None:
    for name in ("POSTGRES_PASSWORD", "JOBQUEUE_TOKEN"):
        monkeypatch.setenv(name, "secret")
    validator("docker-compose", "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet")
