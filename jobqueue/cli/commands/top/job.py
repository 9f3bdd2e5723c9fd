"""Draws one job: why it is where it is, its life, and all that `jobqueue show` prints."""

from datetime import UTC

from rich.ansi import AnsiDecoder
from rich.text import Text

from jobqueue.cli.commands.top.draw import memory, wrap
from jobqueue.cli.commands.top.views import Item, Line, Room
from jobqueue.cli.job_renderer import render_details, title_of
from jobqueue.display import duration
from jobqueue.printable_text import escape_controls
from jobqueue.records import AttemptRecord, JobRecord, counted
from jobqueue.store.why import Explanation
from jobqueue.timeline import Step, steps_of

STEPS_FIRST, STEPS_LAST = 2, 6
"""Steps of a long life that are drawn."""
MARKS = {"ok": ("●", "green"), "bad": ("✗", "red"), "run": ("▶", "yellow"), "wait": ("○", "")}


def page(
    job: JobRecord, why: Explanation, attempts: list[AttemptRecord], earlier: int, room: Room
) -> list[Line]:
    """Draw a job; `earlier` attempts are left out of these."""
    item = Item("job", str(job.id), job)
    texts = [
        *wrap(title_of(job), room.width),
        *wrap(Text(escape_controls(why.sentence), "bold"), room.width),
        *wrap(Text(f"to do: {escape_controls(why.advice)}", "dim"), room.width),
        Text(),
        *(
            line
            for step in _life(list(steps_of(job, attempts, earlier)))
            for line in wrap(step, room.width)
        ),
        Text(),
    ]
    screen = memory(room.width)
    render_details(job, attempts, screen)
    printed = AnsiDecoder().decode(screen.file.getvalue())  # type: ignore[attr-defined]
    texts += [part for line in printed for part in wrap(line, room.width)]
    return [Line(text, item if at == 0 else None) for at, text in enumerate(texts)]


def _life(steps: list[Step]) -> list[Text]:
    if len(steps) <= STEPS_FIRST + STEPS_LAST + 1:
        return [_step(step) for step in steps]
    left_out = len(steps) - STEPS_FIRST - STEPS_LAST
    return [
        *(_step(step) for step in steps[:STEPS_FIRST]),
        Text(f"  … {counted(left_out, 'more step')}", "dim"),
        *(_step(step) for step in steps[-STEPS_LAST:]),
    ]


def _step(step: Step) -> Text:
    mark, style = MARKS[step.kind]
    at = "" if step.at is None else f"{step.at.astimezone(UTC):%H:%M:%S}"
    took = "" if step.seconds is None else f"for {duration(step.seconds)}"
    note = escape_controls(step.note)
    said = "  ".join(filter(None, [escape_controls(step.name), took, note]))
    return Text(f"{mark} ", style) + Text(f"{at:<8}  ", "dim") + Text(said)
