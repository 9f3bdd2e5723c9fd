"""The OpenAPI document is valid, has every route, and every answer is as it says: a client made from it drives them all."""

from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.routing import Mount

from jobqueue import JobQueue, every
from jobqueue.web import Server, create_app, rights
from jobqueue.web.dashboard import FORMS, PAGES, UNDO
from jobqueue.web.pages.jobs import VERBS
from tests.web.conftest import JSON, Client, Serve, working


class Described:
    """A client that knows nothing but the document: its operations by id, each checked by it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.document = client.get("/openapi.json").json()
        self.operations = {
            operation["operationId"]: (method, path, operation)
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
        }
        self.driven: set[str] = set()

    def __call__(self, id_: str, body: Any = None, **parameters: Any) -> Any:
        """The answer of an operation to what the document allows; it has to succeed."""
        method, path, operation = self.operations[id_]
        self.driven.add(id_)
        described = {each["name"]: each for each in operation.get("parameters", [])}
        for name, value in parameters.items():
            self.check(described[name]["schema"], value)
        if body is not None:
            self.check(content(operation["requestBody"])["schema"], body)
        query = {name: parameters[name] for name in parameters if described[name]["in"] == "query"}
        how = {} if body is None else {"json": body}
        response = self.client.request(method, path.format(**parameters), params=query, **how)
        assert response.is_success, (id_, response.text)
        self.check_answer(operation, response)
        is_json = response.headers["content-type"] == "application/json"
        return response.json() if is_json else response.text

    def check_answer(self, operation: dict[str, Any], response: httpx.Response) -> None:
        """Its status is a documented one, and its body what that status has: nothing is left out."""
        told = operation["responses"][str(response.status_code)]
        if "$ref" in told:
            told = self.resolve(told)
        named = {name.lower() for name in told.get("headers", {})}
        assert {"link", "location", "retry-after", "jobqueue-notice"} & set(
            response.headers
        ) <= named
        (media,) = told["content"]
        assert response.headers["content-type"].partition(";")[0] == media
        if media == "application/json":
            schema = told["content"][media]["schema"]
            if response.is_success:
                schema = self.strict(schema)
            self.check(schema, response.json())

    def check(self, schema: dict[str, Any], value: Any) -> None:
        whole = {**schema, "components": self.document["components"]}
        checker = Draft202012Validator.FORMAT_CHECKER
        errors = Draft202012Validator(whole, format_checker=checker).iter_errors(value)
        assert [f"{error.json_path}: {error.message}" for error in errors] == []

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        found = self.document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return found

    def strict(self, schema: Any, *, is_part: bool = False) -> Any:
        """The same schema, of which no object may have a key that is not documented."""
        if isinstance(schema, list):
            return [self.strict(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        if "$ref" in schema:
            return self.strict(self.resolve(schema), is_part=is_part)
        new = {name: self.strict(value) for name, value in schema.items() if name != "properties"}
        if "allOf" in schema:
            new["allOf"] = [self.strict(each, is_part=True) for each in schema["allOf"]]
        if "properties" in schema:
            named = schema["properties"].items()
            new["properties"] = {name: self.strict(value) for name, value in named}
        if {"properties", "allOf"} & new.keys() and not is_part:
            new.setdefault("unevaluatedProperties", False)
        return new


def content(of: dict[str, Any]) -> dict[str, Any]:
    (media,) = of["content"].values()
    return dict(media)


@pytest.fixture
def described(client: Client) -> Described:
    return Described(client)


@pytest.mark.databases("sqlite")
def test_the_document_is_valid_and_has_the_routes(described: Described, jobs: JobQueue) -> None:
    validate(described.document)
    assert {(method.upper(), path) for method, path, _ in described.operations.values()} == {
        (method, route.path)
        for route in create_app(jobs)._api.routes()
        for method in route.methods or ()
        if method != "HEAD"
    }
    index = described("index")
    assert index["openapi"] == "/openapi.json"
    assert {(each["method"], each["path"]) for each in index["operations"]} == {
        (method.upper(), path) for method, path, _ in described.operations.values()
    }


def test_every_operation_is_served_and_answers_as_documented(
    described: Described, jobs: JobQueue
) -> None:
    do = described

    @jobs.task(schedule=every(hours=1))
    def hourly() -> None: ...

    do("add_schedule", {"name": "sums", "task": "add", "args": [1, 2], "every": "5m"})
    assert do("get_schedule", name="sums")["every"] == 300
    assert len(do("preview_schedule", name="sums", days=1, limit=3)) == 3
    id_ = do("enqueue", {"task": "add", "args": [2, 3], "queue": "sums", "tags": ["red"]})["id"]
    do("enqueue", [{"task": "add", "args": [1, 1]}, {"task": "fail", "kwargs": {"message": "no"}}])
    for verb in ("pause", "resume"):
        do(f"{verb}_queue", name="sums")
        do(f"{verb}_task", name="add")
        do(f"{verb}_tag", name="red")
        do(f"{verb}_schedule", name="sums")
    assert do("limit_queue", {"limit": 4}, name="sums") == {"changed": 1}
    do("rate_queue", {"rate": "100/minute", "burst": 10}, name="sums")
    do("fair_queue", {"fair": True}, name="sums")
    do("explain_job", id=id_)
    do("update_job", {"priority": 5, "tags": ["late"]}, id=id_)
    do("cancel_job", id=id_)
    do("retry_job", {"succeeded": False}, id=id_)
    other = do("enqueue", {"task": "add", "args": [5, 5], "delay": "1h"})["id"]
    assert do("cancel_jobs", {"ids": [other]})["changed"] == 1
    assert do("retry_jobs", {"filter": {"state": "cancelled", "q": "ad"}})["changed"] == 1
    set_ = {"ids": [other], "set": {"priority": 9}, "dry_run": True}
    assert do("update_jobs", set_)["sample"]
    assert do("delete_jobs", {"all": True, "dry_run": True})["would_change"] == 4
    do("delete_job", id=other)
    with working(jobs):
        assert do("get_job", id=id_, wait=30)["state"] == "succeeded"
        do("get_job", id=id_ + 2, wait=30)
        do("list_workers")
    assert [job["id"] for job in do("list_jobs", state="failed", task="fail")] == [id_ + 2]
    assert len(do("list_jobs", limit=1)) == 1
    assert do("list_jobs", queue="smus") == []
    assert do("cancel_jobs", {"filter": {"queue": "smus"}})["changed"] == 0
    do("list_errors", since="1h", task="fail", limit=10)
    do("list_queues")
    do("list_tasks")
    do("get_stats", minutes=60)
    assert do("run_schedule", name="sums")["created"]
    assert do("purge_queue", {"dry_run": True}, name="default")["would_change"] == 1
    do("purge_queue", name="default")
    do("list_schedules")
    do("remove_schedule", name="sums")
    actions = do("list_actions", since="1h", limit=50)
    assert do("undo_action", id=next(a["id"] for a in actions if a["verb"] == "fair"))["undone"]
    do("examine")
    for probe in ("index", "openapi", "alive", "ready", "metrics"):
        do(probe)
    do("reset_schedule", name="hourly")
    assert do.driven == set(do.operations)


CORPUS = [  # What is wrong of a body, whatever it should be.
    (400, "{", "application/json"),
    (400, "[]", "application/json"),
    (400, "7", "application/json"),
    (400, '{"surprise": 1}', "application/json"),
    (400, '[{"task": "ad"}]', "application/json"),
    (400, '{"a": 1, "a": 2}', "application/json"),
    (400, "[" * 1000, "application/json"),
    (400, b"\xff", "application/json"),
    (415, "{}", "text/plain"),
    (415, "{}", "application/x-www-form-urlencoded"),
]


@pytest.mark.databases("sqlite")
def test_wrong_input_of_every_operation_is_refused_in_one_line(
    described: Described, jobs: JobQueue
) -> None:
    id_ = described("enqueue", {"task": "add", "args": [2, 3]})["id"]
    jobs.schedules.add("sums", jobs.registry["add"].call(1, 2), every(minutes=5))
    names = {"queues": "default", "tasks": "add", "schedules": "sums"}
    before = list(jobs.list(limit=None))

    def refused(status: int, method: str, path: str, **how: Any) -> None:
        response = described.client.request(method, path, **how)
        assert response.status_code == status, (method, path, how, response.text)
        strict = described.strict({"$ref": "#/components/schemas/Error"})
        described.check(strict, response.json())
        message = response.json()["error"]["message"]
        assert "\n" not in message and "Traceback" not in message

    refused(404, "POST", "/api/jobs/99/cancel")
    for method, path, operation in described.operations.values():
        name = names.get(operation["tags"][0], "red")
        right = path.format(id=id_, name=name)
        if "400" in operation["responses"]:
            refused(400, method, right + "?surprise=1")
        if path != right:
            sent = {"json": {}} if "requestBody" in operation else {}
            refused(400, method, path.format(id="x", name="a%20b"), **sent)
        if method != "get" and "requestBody" not in operation:
            refused(415, method, right, content="{}", headers={"Content-Type": "text/plain"})
            for untaken in ({"dry_run": True}, [1]):
                refused(400, method, right, json=untaken)
        if "requestBody" in operation and operation["operationId"] != "enqueue":
            refused(413, method, right, content=b" " * (1 << 20) + b"{}", headers=JSON)
        for each in operation.get("parameters", []):
            if each["in"] == "query" and each["schema"].get("type") in ("integer", "number"):
                for wrong in ("x", "-1"):
                    refused(400, method, right, params={each["name"]: wrong})
        for status, body, kind in CORPUS if "requestBody" in operation else ():
            refused(status, method, right, content=body, headers={"Content-Type": kind})
    assert list(jobs.list(limit=None)) == before


@pytest.mark.databases("sqlite")
def test_what_the_dashboard_can_do_the_api_can(jobs: JobQueue) -> None:
    of_api = create_app(jobs)._api.operations
    verbs = {(each.path.split("/")[2], each.verb) for each in of_api if each.verb}
    forms = [*(path for path, _ in FORMS), UNDO]
    assert {(path.split("/")[1], path.rpartition("/")[2]) for path in forms} <= verbs
    paths = {each.path for each in of_api}
    assert {f"/api/jobs/{verb}" for verb in VERBS} <= paths
    pages = {page.path for page in PAGES if page.title} - {"/"}
    assert {f"/api{path}" for path in pages} <= paths
    assert {verb for _, verb in verbs} == set(rights.VERBS)


@pytest.mark.databases("sqlite")
def test_each_verb_asks_for_its_right_and_reading_for_none(serve: Serve, jobs: JobQueue) -> None:
    asked = serve(authorize=lambda request: request.headers["x-may"].split(","))
    reads_only = serve(read_only=True)
    others = set(rights.VERBS)
    for each in create_app(jobs)._api.operations:
        how: dict[str, Any] = {"json": {}} if each.body else {}
        path = each.path.format(id=99, name="none")
        if each.verb is None:
            assert asked.get(path, headers={"x-may": "run"}).status_code in (200, 404)
            assert reads_only.get(path).status_code in (200, 404)
            continue
        without = {"x-may": ",".join(others - {each.verb})}
        error = asked.refused(403, each.method, path, headers=without, **how)
        assert (error["field"], error["value"]) == ("authorize", each.verb)
        may = asked.request(each.method, path, headers={"x-may": each.verb}, **how)
        assert may.status_code in (400, 404), (path, may.text)
        assert "read-only" in reads_only.refused(403, each.method, path, **how)["message"]


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize(("mount", "below"), [("/queue", "/queue"), ("/щ é", "/%D1%89%20%C3%A9")])
def test_below_a_mount_all_links_lead_below_it(jobs: JobQueue, mount: str, below: str) -> None:
    app = Starlette(routes=[Mount(mount, create_app(jobs))])
    app.has_token, app.release = False, list  # As the server asks of an app.
    with Server(app, port=0, grace=1) as server, Client(base_url=server.url) as client:
        call = {"task": "add", "args": [1, 2]}
        for _ in range(2):
            where = client.post(f"{below}/api/jobs", json=call).headers["location"]
        assert where == f"{below}/api/jobs/2" and client.get(where).json()["args"] == [1, 2]
        links = client.get(f"{below}/api/jobs?limit=1").links
        assert links["next"]["url"] == f"{below}/api/jobs?limit=1&before=2"
        index = client.get(f"{below}/api").json()
        assert index["openapi"] == f"{below}/openapi.json"
        assert {each["path"] for each in index["operations"]} >= {f"{below}/api/jobs"}
        assert client.get(index["openapi"]).json()["servers"] == [{"url": "."}]
