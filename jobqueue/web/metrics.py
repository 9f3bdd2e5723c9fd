"""Metrics in Prometheus' text format, out of the monitoring views."""

from collections.abc import Iterable
from typing import Any

from jobqueue.states import FINAL, State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[dict[str, str], float]

LIVE = [state for state in State if state not in FINAL]


def unreachable() -> str:
    """All there is to say while the database does not answer."""
    return _family("up", "gauge", "1 if the database answers.", [({}, 0)])


def text(stats: dict[str, Any]) -> str:
    """The metrics of `Monitor.stats()`."""
    queues, tasks = stats["queues"], stats["tasks"]
    families = [
        _family("up", "gauge", "1 if the database answers.", [({}, 1)]),
        _family(
            "jobs",
            "gauge",
            "Jobs that have not ended, by queue and state.",
            [
                ({"queue": row["queue"], "state": state.value}, row[state.value])
                for row in queues
                for state in LIVE
            ],
        ),
        _family(
            "oldest_available_seconds",
            "gauge",
            "For how long the oldest job that could run has waited.",
            [({"queue": row["queue"]}, row["oldest_available_seconds"] or 0) for row in queues],
        ),
        _family(
            "queue_paused",
            "gauge",
            "1 if nothing may begin in the queue.",
            [({"queue": row["queue"]}, int(row["paused"])) for row in queues],
        ),
        _family(
            "finished_jobs_total",
            "counter",
            "Jobs that have ended, by task and outcome.",
            [
                ({"task": row["task"], "outcome": state.value}, row[state.value])
                for row in tasks
                for state in State
                if state in FINAL
            ],
        ),
        _family(
            "errored_attempts_total",
            "counter",
            "Attempts that errored, by task.",
            [({"task": row["task"]}, row["errored_attempts"]) for row in tasks],
        ),
        _family("workers", "gauge", "Live workers.", [({}, stats["workers"])]),
    ]
    return "".join(families)


def _family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> str:
    name = f"jobqueue_{name}"
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{_labels(labels)} {value}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    written = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return f"{{{written}}}"


def _escape(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return escaped.encode("utf-8", "replace").decode()
