"""What operators did, in words: for the log of the command line, the API and the dashboard."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from jobqueue.schedules.definition import Definition

Row = Mapping[str, Any]
"""A row of the audit as `Audit.stored` returns it."""

IDS_SHOWN = 5
_UNSHOWN = {"args": "arguments", "options": "options"}
"""What is said of a schedule to be changed, but not how: a task may hide its arguments."""


def about(row: Row) -> str:
    """Return what an action was about: `queue mail, limit 4 → 10`."""
    given, before = dict(row["target"]), row["before"] or {}
    ids, more = given.pop("ids", None), given.pop("more_ids", 0)
    parts = []
    if ids is not None:
        rest = max(0, len(ids) - IDS_SHOWN) + more
        named = ", ".join(map(str, ids[:IDS_SHOWN]))
        parts.append(f"job{'' if len(ids) + more == 1 else 's'} {named}")
        parts += [f"and {rest:,} more"] if rest else []
    if given.pop("all", None):
        parts.append("all jobs")
    new = given.pop("set", None)
    parts += [
        f"{name} {_said(value)}"
        for name, value in given.items()
        if new is not None or name not in before
    ]
    if not before:
        parts += [f"set {name} {_said(value)}" for name, value in (new or {}).items()]
    return ", ".join(parts + _changes(row))


def _changes(row: Row) -> list[str]:
    """Return what an action replaced, and by what: `limit 4 → 10`."""
    before = row["before"] or {}
    if "became" in before:
        was, became = _parts(before["was"]), _parts(before["became"])
        return [
            f"{_UNSHOWN[name]} changed" if name in _UNSHOWN else f"{name} {was[name]} → {value}"
            for name, value in became.items()
            if value != was[name]
        ]
    new = row["target"].get("set", row["target"])
    return [f"{name} {_said(value)} → {_said(new.get(name))}" for name, value in before.items()]


def shown(before: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what an action replaced, without arguments of schedules."""
    if before is None or "became" not in before:
        return None if before is None else dict(before)
    return {name: value for name, value in _parts(before["was"]).items() if name not in _UNSHOWN}


def _parts(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a schedule is, by words for it."""
    definition = Definition(**{each.name: columns[each.name] for each in fields(Definition)})
    named = ("task", "catch_up", "overlap", *_UNSHOWN)
    return {"when": definition.describe(), **{name: columns[name] for name in named}}


def _said(value: Any) -> str:
    """Return a value in words: `none`, `on`, `eu, us`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_said(one)}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
