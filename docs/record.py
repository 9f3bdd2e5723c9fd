"""Record `jobqueue demo` as docs/demo.svg: run `make recording`.

The demo runs for real, on a fresh SQLite file. In the picture each line appears when it appeared in that run, with pauses of a second
at most; a viewer that does not animate shows all lines at once. What follows the statistics, commands to paste, is left out.
"""

import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from sqlalchemy import URL

from jobqueue.cli.demo.run import perform
from jobqueue.cli.demo.output import Narration

PICTURE = Path(__file__).parent / "demo.svg"
WIDTH = 80  # cells
PAUSE_MAX = 1.0  # seconds

ANIMATION = """
    @keyframes appear {{ from {{ opacity: 0 }} }}
    text[style] {{ animation: appear 1ms backwards }}
    @media (prefers-reduced-motion: reduce) {{ text[style] {{ animation: none }} }}

    {styles}"""


class Timed(io.StringIO):
    """Remembers when each of its lines was written: seconds, without what is too long of pauses."""

    def __init__(self) -> None:
        super().__init__()
        self._last = time.monotonic()
        self._time = 0.0
        self.times: list[float] = []

    def write(self, text: str) -> int:
        """Write, and note the time for each line that ends."""
        present = time.monotonic()
        self._time += min(present - self._last, PAUSE_MAX)
        self._last = present
        self.times += [self._time] * text.count("\n")
        return super().write(text)


def template() -> str:
    """Rich's template without the fonts that it would load from elsewhere, and animated."""
    alone = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return alone.replace("{styles}", ANIMATION)


def animated(svg: str, times: list[float]) -> str:
    """The picture with a delay for each line of text."""

    def delayed(match: re.Match[str]) -> str:
        return f'<text style="animation-delay: {times[int(match[2])]:.2f}s"{match[1]}'

    return re.sub(r'<text([^>]* clip-path="url\(#demo-line-(\d+)\)")', delayed, svg)


def main() -> None:
    """Run the demo and write the picture."""
    os.environ |= {"TERM": "dumb", "COLUMNS": str(WIDTH)}  # Lines of progress, not a moving bar.
    output = Timed()
    screen = Console(
        file=output, width=WIDTH, record=True, force_terminal=True, highlight=False, emoji=False
    )
    narration = Narration(screen)
    narration.line("$ jobqueue demo")
    with tempfile.TemporaryDirectory(prefix="jobqueue-demo-") as folder:
        url = URL.create("sqlite", database=f"{folder}/demo.db")
        narration.tell("database", str(url.database))
        run = perform(url, Path(folder), narration)
    narration.found(run)
    if run.problems:
        sys.exit(f"not recorded: {'; '.join(run.problems)}")
    svg = screen.export_svg(title="jobqueue demo", code_format=template(), unique_id="demo")
    PICTURE.write_text(animated(svg, output.times), "utf-8")
    print(f"wrote {PICTURE}: {len(output.times)} lines, shown in {output.times[-1]:.1f} s")


if __name__ == "__main__":
    main()
