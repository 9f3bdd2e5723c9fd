"""GET /api/doctor: what the command says, and whether the server is open to others."""

from jobqueue import JobQueue
from jobqueue.store.doctor import examine
from jobqueue.web import create_app
from tests.web.conftest import Client


def test_the_doctor_answers_and_knows_whether_the_server_is_open_to_others(
    client: Client, jobs: JobQueue
) -> None:
    client.id(1, 2, queue="mail")
    answer = client.get("/api/doctor").json()
    assert answer["checks"] == 17
    assert [found["check"] for found in answer["findings"]] == ["unserved_queues"]
    assert answer["findings"][0]["remedy"] == "jobqueue worker --app MODULE:NAME --queues mail"
    for more, count in (({}, 1), ({"token": "t"}, 0), ({"authorize": lambda _: "read"}, 0)):
        guard = create_app(jobs, hosts=["localhost", "jobs.example"], **more)._guard
        found = [each for each in examine(jobs.store, guard.open_names).findings]
        assert [each.names for each in found if each.check == "exposed_web"] == [
            ("jobs.example",)
        ] * count
