"""What dashboards, alerts and the scaler ask for exists: metrics with their labels, views with their columns."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine, create_engine

from jobqueue import JobQueue
from jobqueue.prometheus import Collector, WorkerCollector
from jobqueue.store.urls import parse
from tests.deploy.files import DEPLOY, KEDA
from tests.deploy.validators import Run
from tests.pages import ROOT, text_of
from tests.test_readme import anchors

BOARDS = {path.stem: json.loads(text_of(path)) for path in sorted(DEPLOY.glob("grafana/*.json"))}
RULES = [
    rule
    for group in yaml.safe_load(text_of(DEPLOY / "alerts.yaml"))["groups"]
    for rule in group["rules"]
]
PANELS = [
    (panel["title"], target["format"], target["rawSql"])
    for panel in BOARDS["sql"]["panels"]
    for target in panel["targets"]
]
EXPRESSIONS = [
    *(
        (panel["title"], target["expr"])
        for panel in BOARDS["prometheus"]["panels"]
        for target in panel["targets"]
    ),
    *((rule["alert"], rule["expr"]) for rule in RULES),
]
OF_PROMETHEUS = {"instance"}
"""Labels that Prometheus adds."""
STATS = {"Live workers": 0, "Waiting": 1, "Running": 0, "Succeeded in this time": 2}
STATS |= {"Failed in this time": 1}
"""What the single figures show of the queue below."""


class Sample:
    """A queue in which something succeeded and failed, and a job waits in a bounded queue that nobody serves."""

    def __init__(self, jobs: JobQueue) -> None:
        jobs.queue("mail", max_pending=10)

        @jobs.task(max_attempts=1)
        def halve(number: int) -> float:
            return 1 / number

        for number in (0, 1, 2):
            halve.enqueue(number)
        halve.options(queue="mail").enqueue(1)
        worker = jobs.worker(queues="default", drain=True)
        self._collectors = [WorkerCollector(worker), Collector(jobs)]
        with worker:
            worker.wait()

    def exposed(self) -> dict[str, set[str]]:
        """The labels of each metric."""
        found: dict[str, set[str]] = {}
        for collector in self._collectors:
            for family in collector.collect():
                for sample in family.samples:
                    found.setdefault(sample.name, set()).update(sample.labels)
        return found


@pytest.fixture
def sample(url: str) -> Iterator[Sample]:
    with JobQueue(url) as jobs:
        yield Sample(jobs)


@pytest.fixture
def engine(url: str, sample: Sample) -> Iterator[Engine]:
    engine = create_engine(parse(url))
    yield engine
    engine.dispose()


# Prometheus


def asked_for(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric of an expression, with the labels that its matchers and the grouping name."""
    groups = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    grouped = set(re.findall(r"\w+", " ".join(groups)))
    for name, matchers in re.findall(r"\b(jobqueue_\w+)(?:\{([^}]*)\})?", expression):
        yield name, grouped | set(re.findall(r"(\w+)\s*(?:=|!)", matchers))


@pytest.mark.databases("sqlite")
def test_every_metric_and_label_that_is_asked_for_is_exposed(sample: Sample) -> None:
    exposed = sample.exposed()
    asked = [(title, *each) for title, text in EXPRESSIONS for each in asked_for(text)]
    assert len(asked) > 20
    assert [each for each in asked if each[1] not in exposed] == []
    assert [each for each in asked if not each[2] <= exposed[each[1]] | OF_PROMETHEUS] == []


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('sum by (queue) (jobqueue_jobs{state="x"}) / jobqueue_up', {"queue", "state"}),
        ('jobqueue_jobs{a!="1", b=~"2"} > 0', {"a", "b"}),
    ],
)
def test_metrics_and_labels_are_found_in_an_expression(expression: str, found: set[str]) -> None:
    name, labels = next(asked_for(expression))
    assert (name, labels) == ("jobqueue_jobs", found)


def test_there_are_six_alerts_and_each_says_what_and_where_to_read_on() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) == 6
    for rule in RULES:
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor in anchors(ROOT / page), rule["alert"]
        assert rule["annotations"]["summary"] and rule["for"] and rule["labels"]["severity"]


def test_the_findings_that_alerts_wait_for_are_checks_of_doctor() -> None:
    waited = re.findall(r'check=~?"([\w|]+)"', " ".join(text for _, text in EXPRESSIONS))
    checks = {check for each in waited for check in each.split("|")}
    page = text_of(ROOT / "docs/monitoring.md")
    documented = re.findall(r"`(\w+)`", page.split("| check | finds |")[1].split("\n\n")[0])
    assert checks == {"unserved_queues", "lost_workers", "stuck_handlers"} <= set(documented)


def test_prometheus_takes_the_alerts_and_the_expressions_of_the_dashboard(
    validator: Run, tmp_path: Path
) -> None:
    rules = [
        {
            "record": f"panel:{number}",
            "expr": text.replace("$__rate_interval", "1m").replace("$queue", ".*"),
        }
        for number, (_, text) in enumerate(EXPRESSIONS)
    ]
    panels = tmp_path / "panels.yaml"
    panels.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    validator("promtool", "check", "rules", str(DEPLOY / "alerts.yaml"), str(panels))


def test_each_alert_fires_when_it_should_and_not_before(validator: Run) -> None:
    validator("promtool", "test", "rules", str(ROOT / "tests/deploy/alerts_test.yaml"))


# SQL


def without_macros(sql: str) -> str:
    """As Grafana sends it, for a range of three hours."""
    sent = re.sub(
        r"\$__timeFilter\((\w+)\)", r"\1 BETWEEN now() - interval '3 hours' AND now()", sql
    )
    assert "$" not in sent, "a macro that this test does not know"
    return sent


@pytest.mark.databases("postgres")
def test_every_panel_is_answered_to_a_reader(engine: Engine) -> None:
    grants = re.findall(
        r"^```sql\n(.*?)^```", text_of(ROOT / "docs/roles.md"), re.DOTALL | re.MULTILINE
    )[-1]
    answers = {}
    with engine.connect() as connection:  # Its transaction, with the role in it, is rolled back.
        connection.exec_driver_sql("CREATE ROLE deploy_reader")
        connection.exec_driver_sql(grants.replace("TO reader;", "TO deploy_reader;"))
        connection.exec_driver_sql("SET ROLE deploy_reader")
        for title, form, sql in PANELS:
            result = connection.exec_driver_sql(without_macros(sql))
            columns = list(result.keys())
            rows = [row._asdict() for row in result]
            if form == "time_series":
                assert columns[0] == "time" and len(columns) > 1, title
                rows = rows and [{"time": None}]
            answers[title] = rows
    assert {title: list(answers[title][0].values())[0] for title in STATS} == STATS
    assert answers["Oldest wait"][0]["oldest"] > 0
    assert {row["queue"] for row in answers["Queues"]} == {"default", "mail"}
    [error] = answers["Errors of 24 hours, by cause"]
    assert (error["task"], error["error_type"]) == ("halve", "ZeroDivisionError")
    empty = {title for title, rows in answers.items() if not rows}
    assert empty == {"Workers"}, "the worker has left"


@pytest.mark.databases("postgres")
def test_the_scaler_gets_one_integer_the_jobs_that_run_or_could(engine: Engine, url: str) -> None:
    [trigger] = KEDA[-1]["spec"]["triggers"]
    assert trigger["type"] == "postgresql"

    def answer() -> Any:
        with engine.connect() as connection:
            [[value]] = connection.exec_driver_sql(trigger["metadata"]["query"])
            return value

    assert answer() == 1 and type(answer()) is int
    with JobQueue(url) as jobs:
        jobs.pause("mail")
        assert answer() == 0


# Both dashboards


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_asks_for_its_source_and_has_no_panel_over_another(name: str) -> None:
    board = BOARDS[name]
    [source] = [each for each in board["templating"]["list"] if each["type"] == "datasource"]
    places: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            assert target["datasource"] == {"type": source["query"], "uid": "${datasource}"}
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & places and at["x"] + at["w"] <= 24, panel["title"]
        places |= cells
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
