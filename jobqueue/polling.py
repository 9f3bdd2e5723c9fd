"""How often to poll the database for something that another process does."""

POLL_MAX = 0.05
GROWTH = 1.5
POLL_COST = 4
"""A poll that took t seconds is followed by at least POLL_COST * t without one, up to a second."""


class PollInterval:
    """Seconds between polls: `first`, then half as long again each time, up to POLL_MAX."""

    def __init__(self, first: float) -> None:
        self._next = first

    def next(self, took: float = 0.0) -> float:
        """Return the seconds until the next poll, after one that took `took` seconds."""
        seconds, self._next = self._next, min(POLL_MAX, self._next * GROWTH)
        return max(seconds, min(POLL_COST * took, 1.0))
