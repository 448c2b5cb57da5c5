"""Progress of long work: bars on a terminal, plain lines anywhere else, nothing when quiet."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

Advance = Callable[[int], None]


class Progress:
    """Says nothing; what libraries and tests use."""

    @contextmanager
    def step(self, name: str, description: str) -> Iterator[None]:
        """Frame one pipeline step."""
        yield

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Advance]:
        """Frame long work inside a step; call the yielded function with the amount newly done."""
        yield lambda amount: None

    def note(self, message: str) -> None:
        """Tell one thing worth knowing."""


class LineProgress(Progress):
    """One line at the start and end of each step, and one each `seconds_between` within long work: for logs."""

    def __init__(self, console: Console, seconds_between: float = 10) -> None:
        self._console, self._seconds_between = console, seconds_between

    @contextmanager
    def step(self, name: str, description: str) -> Iterator[None]:
        """Print when the step starts and when it has ended well."""
        self.note(f"{name}: {description}")
        started = time.monotonic()
        yield
        self.note(f"{name}: done in {time.monotonic() - started:.1f} s")

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Advance]:
        """Print how far the work is, now and then."""
        done, last = 0, time.monotonic()

        def advance(amount: int) -> None:
            nonlocal done, last
            done += amount
            if time.monotonic() - last >= self._seconds_between:
                last = time.monotonic()
                self.note(f"  {description}: {done:,}{f' of {total:,}' if total else ''} {unit}")

        yield advance

    def note(self, message: str) -> None:
        """Print a plain line."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)


class _DescriptionColumn(ProgressColumn):
    """What is done; cut where the terminal is narrow, since the other columns say how far it is."""

    def render(self, task: Task) -> Text:
        """The text of one task."""
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class _AmountColumn(ProgressColumn):
    """How much is done, of how much where that is known; nothing for a step that only has a spinner."""

    def get_table_column(self) -> Column:
        """The column in the table of bars."""
        return Column(no_wrap=True)

    def render(self, task: Task) -> Text:
        """The text of one task."""
        if task.total is None and not task.completed:
            return Text("")
        total = "" if task.total is None else f" of {task.total:,.0f}"
        return Text(f"{task.completed:,.0f}{total} {task.fields['unit']}", style="progress.download")


class BarProgress(Progress):
    """Live bars, and a line that stays for each finished step."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            SpinnerColumn(),
            _DescriptionColumn(),
            BarColumn(bar_width=20),
            _AmountColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    @contextmanager
    def step(self, name: str, description: str) -> Iterator[None]:
        """A spinner while the step runs, a line when it has ended well."""
        started = time.monotonic()
        with self.task(description, unit=""):
            yield
        ended = f"\N{CHECK MARK} {name:<20} {time.monotonic() - started:7.1f} s  {description}"
        self._bars.console.print(ended, highlight=False, markup=False, no_wrap=True, overflow="ellipsis")

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Advance]:
        """A bar while the work runs; gone when it has ended."""
        if not self._bars.live.is_started:
            self._bars.start()
        task_id = self._bars.add_task(description, total=total, unit=unit)
        try:
            yield lambda amount: self._bars.advance(task_id, amount)
        finally:
            self._bars.remove_task(task_id)
            if not self._bars.task_ids:
                self._bars.stop()

    def note(self, message: str) -> None:
        """Print above the bars."""
        self._bars.console.print(message, highlight=False, markup=False)


def make_progress(*, quiet: bool = False) -> Progress:
    """What suits standard error: bars on a terminal, lines in a pipe, nothing when `quiet`."""
    if quiet:
        return Progress()
    console = Console(stderr=True)
    return BarProgress(console) if sys.stderr.isatty() else LineProgress(console)
