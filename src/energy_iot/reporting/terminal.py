"""What all output for a terminal is made of, so that it can be read at 80 columns as well as at 160."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

PIPE_WIDTH: Final = 160
UNLIMITED_WIDTH: Final = 10_000


def make_console() -> Console:
    """Standard output; in a pipe lines keep the width that the tables need."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def make_table(title: str | None = None, *headings: str, right: Iterable[str] = ()) -> Table:
    """An empty table as all of ours look.

    Args:
        title: Above it.
        headings: Of its columns.
        right: Those of them that hold figures.
    """
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    figures = set(right)
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in figures else "left",
            overflow="fold",
            min_width=max(map(len, heading.split())),
        )
    return table


@dataclass(frozen=True)
class FirstThatFits:
    """Shows the first of its choices whose words need not be broken, or the last."""

    choices: tuple[RenderableType, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What rich asks for."""
        unlimited = options.update(width=UNLIMITED_WIDTH)
        fits = (
            choice
            for choice in self.choices
            if Measurement.get(console, unlimited, choice).minimum <= options.max_width
        )
        yield next(fits, self.choices[-1])


@dataclass(frozen=True)
class WrappedLines:
    """Lines of text; what goes on in another line is indented by two more than the line."""

    lines: tuple[str, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What rich asks for."""
        for line in self.lines:
            indent = " " * (len(line) - len(line.lstrip()) + 2)
            parts = textwrap.wrap(line, options.max_width, subsequent_indent=indent, break_on_hyphens=False)
            yield Text("\n".join(parts))
