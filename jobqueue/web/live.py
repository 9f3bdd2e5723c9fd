"""What live pages show, read once for all viewers."""

import asyncio
import itertools
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

KEEP_MIN = 1.8
"""Seconds, a little less than between two looks of a page: ten viewers cost what one does."""
COST_MAX = 0.02
"""The part of the time for which one view may read, however many look at it."""
KEPT_UNASKED = 10.0
"""Seconds for which a view is kept that nobody looks at."""
VIEWS_MAX = 50

Read = Callable[[], Awaitable[tuple[str, dict[str, Any]]]]


class Seen(NamedTuple):
    """What a view has returned."""

    template: str
    data: dict[str, Any]
    serial: str
    """Another one for other data."""


class LiveViews:
    """Shares what views return among all that look, for at least KEEP_MIN seconds."""

    def __init__(self) -> None:
        self._serials = map(str, itertools.count())
        self._process = secrets.token_hex(4)
        self._views: OrderedDict[str, _View] = OrderedDict()

    async def get(self, key: str, read: Read, *, follows: bool) -> Seen:
        """Return what the view of a key shows; `read` is called where that is too old.

        Who `follows` a page asks again soon. Who loads it wants what is there now, unless reading
        that is slow.
        """
        view = self._views.pop(key, None) or _View()
        self._views[key] = view
        view.asked = time.monotonic()
        self._forget(view.asked - KEPT_UNASKED)
        keep = max(KEEP_MIN, view.took / COST_MAX) if follows else view.took / COST_MAX / 10
        if view.task is None and (view.seen is None or view.asked >= view.read_at + keep):
            view.task = asyncio.ensure_future(self._read(view, read))
            view.task.add_done_callback(lambda done: done.cancelled() or done.exception())
        if view.task is not None:
            return await asyncio.shield(view.task)
        assert view.seen is not None
        return view.seen

    def _forget(self, before: float) -> None:
        """Drop the views that were asked for longest ago: they are in this order."""
        while len(self._views) > VIEWS_MAX or next(iter(self._views.values())).asked < before:
            self._views.popitem(last=False)

    def clear(self) -> None:
        """Forget all: something was changed here, and who changed it wants to see that."""
        self._views.clear()

    async def _read(self, view: "_View", read: Read) -> Seen:
        began = time.monotonic()
        try:
            template, data = await read()
            if view.seen is None or view.seen.data != data:
                view.seen = Seen(template, data, f"{self._process}-{next(self._serials)}")
            view.read_at = time.monotonic()
            view.took = view.read_at - began
            return view.seen
        finally:
            view.task = None


class _View:
    seen: Seen | None = None
    took = read_at = 0.0
    asked = 0.0
    task: asyncio.Task[Seen] | None = None
