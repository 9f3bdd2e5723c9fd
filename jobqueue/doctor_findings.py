"""What `jobqueue doctor` finds: what is wrong or will be, and what to do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or will be."""

    check: str
    """The name of the check that found it, such as `lost_workers`."""
    sentence: str
    remedy: str
    """A command or a statement to paste."""
    names: tuple[str, ...] = ()
    """The queues, tasks, workers, schedules or ids of jobs that it is about, at most 100."""

    def to_json(self) -> dict[str, Any]:
        """The object that `doctor --json` prints."""
        return asdict(self) | {"names": list(self.names)}


NAMES_MAX = 100


def finding(check: str, sentence: str, remedy: str, names: Sequence[object] = ()) -> Finding:
    """Return a finding about these."""
    return Finding(check, sentence, remedy, tuple(map(str, names[:NAMES_MAX])))
