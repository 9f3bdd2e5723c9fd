"""Which jobs a search is about: a query of the dashboard, or what is typed in `jobqueue top`."""

from collections.abc import Mapping
from dataclasses import replace

from jobqueue import text_parsing
from jobqueue.records import JobFilter
from jobqueue.store.error_groups import ErrorGroups
from jobqueue.store.job_pages import JobPages
from jobqueue.store.names import Names

FILTER = ("state", "task", "queue", "tag", "error", "q")


def filter_of(query: Mapping[str, str], names: Names, pages: JobPages) -> JobFilter:
    """Return the filter that a query stands for. Raises InvalidOption.

    `q` is an id, a unique key or the beginning of a task's name; `id` has ids with commas.
    """
    wanted = text_parsing.a_filter(*(query.get(name) or None for name in FILTER[:4]))
    if query.get("error"):
        wanted = replace(wanted, error=ErrorGroups(pages.store).resolve(query["error"]))
    text = query.get("q", "").strip()
    if text.isascii() and text.isdigit():
        wanted = replace(wanted, ids=(text_parsing.job_id(text),))
    elif text:
        held = pages.with_key(text)
        begin = tuple(sorted(name for name in names.tasks if name.startswith(text)))
        wanted = replace(wanted, ids=tuple(held)) if held else replace(wanted, tasks=begin)
    if query.get("id"):
        wanted = replace(wanted, ids=text_parsing.job_ids(tuple(query["id"].split(","))))
    return wanted
