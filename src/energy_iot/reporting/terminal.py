"""What all output for a terminal is made of, so that it can be read at 80 columns as well as at 160."""

import textwrap
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

PIPE_WIDTH: Final = 160
UNLIMITED_WIDTH: Final = 10_000
CUT: Final = "\N{HORIZONTAL ELLIPSIS}"
READABLE_TEXT: Final = 40  # columns


def make_console() -> Console:
    """Standard output; in a pipe lines keep the width that the tables need."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def make_table(title: str | None, *headings: str, right: Collection[str] = (), wrapping: Collection[str] = ()) -> Table:
    """An empty table as all of ours look.

    Args:
        title: Above it.
        headings: Of its columns.
        right: Those of them that hold figures.
        wrapping: Those that hold texts; the others are never broken.
    """
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for heading in headings:
        wraps = heading in wrapping
        table.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=not wraps,
            overflow="fold" if wraps else "ellipsis",
            min_width=READABLE_TEXT if wraps else None,
        )
    return table


@dataclass(frozen=True)
class FirstThatFits:
    """Shows the first of its choices in which nothing has to be cut, or the last; `lines_of` a table always fits."""

    choices: tuple[RenderableType, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What rich asks for."""

        def is_whole(choice: RenderableType) -> bool:
            # columns are cut at the right of the terminal, or within
            needed = Measurement.get(console, options.update(width=UNLIMITED_WIDTH), choice).minimum
            lines = console.render_lines(choice, options)
            return needed <= options.max_width and not any(CUT in part.text for line in lines for part in line)

        yield next(filter(is_whole, self.choices), self.choices[-1])


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


def lines_of(table: Table) -> WrappedLines:
    """A table of `make_table` for where it is too wide: a line for each row, texts that wrap below it."""
    headings = [str(column.header).replace("\n", " ") for column in table.columns]
    lines = [f"{table.title}", ""] if table.title else []
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        said = [str(cell).replace("\n", ", ") for cell in cells]
        named = [
            f"{heading} {text}"
            for heading, text, column in zip(headings[1:], said[1:], table.columns[1:], strict=True)
            if text and column.no_wrap
        ]
        lines.append(f"{said[0]}: {', '.join(named)}")
        texts = [str(cell) for cell, column in zip(cells, table.columns, strict=True) if not column.no_wrap]
        lines += [f"  {line}" for text in texts for line in text.splitlines()]
    return WrappedLines(tuple(lines))
