"""The OpenAPI document is valid, has every route, and every answer is as it says: a client made from it drives them all."""

from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from jobqueue import JobQueue, every
from jobqueue.web import create_app
from tests.web.conftest import Client, working

METHODS = ("get", "post", "put", "delete")


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

    jobs.schedules.add("sums", jobs.registry["add"].call(1, 2), every(minutes=5))
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
    with working(jobs):
        assert do("get_job", id=id_, wait=30)["state"] == "succeeded"
        do("get_job", id=id_ + 2, wait=30)
        do("list_workers")
    assert [job["id"] for job in do("list_jobs", state="failed", task="fail")] == [id_ + 2]
    do("list_errors", since="1h", task="fail", limit=10)
    do("list_queues")
    do("get_stats")
    assert do("run_schedule", name="sums")["created"]
    assert do("purge_queue", {"dry_run": True}, name="default")["would_change"] == 1
    do("purge_queue", name="default")
    do("list_schedules")
    do("remove_schedule", name="sums")
    do("list_actions", since="1h", limit=10)
    do("examine")
    for probe in ("index", "openapi", "alive", "ready", "metrics"):
        do(probe)
    do("reset_schedule", name="hourly")
    assert do.driven == set(do.operations)
