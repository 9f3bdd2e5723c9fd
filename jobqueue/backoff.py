"""Backoff: how long a job waits between two attempts."""

import json
import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before attempt n + 1: min(cap, base ** n), or `cap` if `base` is None; ± jitter."""

    base: float | None
    cap: float
    jitter: float = 0.25

    def delay(self, attempt: int, random_: random.Random | None = None) -> float:
        """Return the seconds to wait after this attempt (1, 2, …) has errored. Never overflows."""
        seconds = self.cap
        if self.base is not None and attempt * math.log(self.base) < math.log(self.cap):
            seconds = self.base**attempt
        uniform = (random_ or random).uniform
        return seconds * uniform(1 - self.jitter, 1 + self.jitter)

    def to_text(self) -> str:
        """Return the JSON that is stored with a job."""
        return json.dumps({"base": self.base, "cap": self.cap, "jitter": self.jitter})

    @staticmethod
    def from_text(text: str) -> "Backoff":
        """Read what `to_text` wrote."""
        return Backoff(**json.loads(text))
