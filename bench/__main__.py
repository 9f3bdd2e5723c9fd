"""python -m bench [drain enqueue latency memory payload starve views processes queues lanes limits fleet pages viewers why peers ceiling] [--database sqlite|postgres|both] [--quick]

python -m bench soak: see bench.soak; it measures nothing.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import traceback
from typing import Any

from bench import (
    ceiling,
    drain,
    enqueue,
    fleet,
    lanes,
    latency,
    limits,
    machine,
    memory,
    pages,
    payload,
    peers,
    processes,
    queues,
    starve,
    viewers,
    views,
    why,
)
from bench.ground import Ground
from bench.soak import command as soak
from bench.stage import Stage

SCENARIOS = {
    "drain": drain,
    "enqueue": enqueue,
    "latency": latency,
    "memory": memory,
    "payload": payload,
    "starve": starve,
    "views": views,
    "processes": processes,
    "queues": queues,
    "lanes": lanes,
    "limits": limits,
    "fleet": fleet,
    "pages": pages,
    "viewers": viewers,
    "why": why,
    "peers": peers,
    "ceiling": ceiling,
}
DEFAULT = [
    "drain",
    "enqueue",
    "latency",
    "memory",
    "payload",
    "starve",
    "views",
    "processes",
    "queues",
    "lanes",
    "limits",
]
NAMES = {"sqlite": "SQLite", "postgres": "Postgres"}
SHOWN = {**NAMES, "redis": "Redis"}

Figures = dict[str, dict[tuple[str, str], dict[str, list[float]]]]
"""Scenario → (what, unit) → database → a value per run."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure jobqueue on this machine."
    )
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="scenario",
        help=f"of {', '.join(SCENARIOS)}; default: {', '.join(DEFAULT)}",
    )
    parser.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument(
        "--runs",
        type=int,
        default=3,
        help="runs of everything; the table shows medians (default: 3)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the work and one run: does it work at all?"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=100_000,
        help="jobs that wait in `limits` (default: 100,000)",
    )
    parser.add_argument(
        "--url",
        help="another Postgres, where databases may be made; default: one from a wheel, fsync on",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON with the value of every run"
    )
    given = parser.parse_args()
    if unknown := set(given.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if given.runs < 1:
        parser.error("--runs: at least 1")
    given.scenarios = given.scenarios or DEFAULT
    given.kinds = list(NAMES) if given.database == "both" else [given.database]
    given.runs = 1 if given.quick else given.runs
    return given


def progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure(given: argparse.Namespace, ground: Ground) -> tuple[Figures, list[str]]:
    """Everything once, then again: what changes on the machine in the meantime changes for all."""
    figures: Figures = {name: {} for name in given.scenarios}
    failures = []
    for run in range(given.runs):
        for name in given.scenarios:
            for kind in [*given.kinds, *getattr(SCENARIOS[name], "OTHER_KINDS", [])]:
                progress(f"run {run + 1} of {given.runs}: {name} on {SHOWN[kind]}")

                def record(
                    what: str, value: float, unit: str, name: str = name, kind: str = kind
                ) -> None:
                    progress(f"    {what}: {shown(value)} {unit}")
                    figures[name].setdefault((what, unit), {}).setdefault(kind, []).append(value)

                try:
                    SCENARIOS[name].measure(Stage(ground, kind, given.quick, given.jobs), record)
                except Exception as error:
                    traceback.print_exc()
                    failures.append(
                        f"run {run + 1}, {name} on {SHOWN[kind]}: {type(error).__name__}: {error}"
                    )
    return figures, failures


def shown(value: float) -> str:
    size = abs(value)
    return (
        f"{value:,.0f}"
        if size >= 100 or value == int(value)
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.2f}"
    )


def cell(values: list[float] | None) -> str:
    if not values:
        return "–"
    middle = shown(statistics.median(values))
    return (
        middle
        if len(values) == 1
        else f"**{middle}** ({shown(min(values))} – {shown(max(values))})"
    )


def table(figures: Figures, kinds: list[str]) -> str:
    lines = []
    for name, rows in figures.items():
        if not rows:
            continue
        position = getattr(SCENARIOS[name], "position", lambda _: 0)
        columns = [*kinds, *getattr(SCENARIOS[name], "OTHER_KINDS", [])]
        lines += [
            "",
            f"### {name}",
            "",
            f"| figure | unit | {' | '.join(SHOWN[kind] for kind in columns)} |",
        ]
        lines.append("|---|---|" + "---:|" * len(columns))
        lines += [
            f"| {what} | {unit} | {' | '.join(cell(by.get(kind)) for kind in columns)} |"
            for (what, unit), by in sorted(rows.items(), key=lambda row: position(row[0][0]))
        ]
    return "\n".join(lines)


def plain(figures: Figures) -> dict[str, Any]:
    return {
        name: [
            {
                "figure": what,
                "unit": unit,
                "runs": by,
                "median": {kind: statistics.median(by[kind]) for kind in by},
            }
            for (what, unit), by in rows.items()
        ]
        for name, rows in figures.items()
    }


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Ground(postgres="postgres" in given.kinds, url=given.url) as ground:
        about = machine.describe(ground)
        for what, text in about.items():
            progress(f"{what}: {text}")
        if os.getloadavg()[0] > 0.3:
            progress("the machine is not idle: figures will be lower than it can do")
        figures, failures = measure(given, ground)
        notes = [*peers.notes]
    about["load average"] += (
        " at the start, " + " ".join(f"{load:.2f}" for load in os.getloadavg()) + " at the end"
    )
    if given.json:
        print(
            json.dumps(
                {"about": about, "figures": plain(figures), "notes": notes, "failures": failures},
                indent=1,
            )
        )
    else:
        print("\n".join(f"- {what}: {text}" for what, text in about.items()))
        if given.quick:
            print("- a quick run: it shows that everything works, not how fast it is")
        elif given.runs > 1:
            print(f"- medians of {given.runs} runs (smallest – largest)")
        print(table(figures, given.kinds))
        print(
            "".join(f"\n- note: {note}" for note in notes)
            + "".join(f"\n- FAILED: {failure}" for failure in failures)
        )
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["soak"]:
            sys.exit(soak.main(sys.argv[2:]))
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
