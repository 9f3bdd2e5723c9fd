"""`doctor` at the command line; what it finds is tested with the store."""

from tests.cli.conftest import Cli


def test_the_doctor_prints_what_to_do_and_exits_with_1_if_there_is_a_finding(bare: Cli) -> None:
    assert bare.ok("doctor").endswith(": nothing found: 16 checks\n")
    assert bare.json("doctor") == {"checks": 16, "findings": []}
    bare.id("add", "--queue", "mail")
    result = bare("doctor")
    assert result.exit_code == 1
    assert result.stdout == (
        "no worker is alive, and jobs wait in queue mail\n  jobqueue worker --app MODULE:NAME --queues mail\n"
    )
    assert result.stderr.endswith(": 1 finding: 16 checks\n")
    result = bare("--json", "doctor")
    assert (result.exit_code, '"check": "unserved_queues"' in result.stdout) == (1, True)


def test_the_doctor_of_a_file_that_is_not_there_makes_none(
    offline: Cli, own_folder: object
) -> None:
    result = offline("doctor", "--url", "sqlite:///none.db")
    assert result.exit_code == 1
    assert result.stdout.startswith("there is no queue in sqlite:///")
    assert not list(own_folder.iterdir())  # type: ignore[attr-defined]
