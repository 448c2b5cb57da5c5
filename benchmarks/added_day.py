"""What a day costs that is added to years: the rows each step worked on, and its time against the whole run's.

A step costs something even when there is nothing to do: libraries load, dbt starts, pages are drawn. That part is
measured on a home of a few readings and taken off both sides; what is left depends on the data.
"""

import io
import re
import statistics
import zipfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.measuring import read_status, run_command, step_seconds

DAYS_ADDED = 5


def measure(file: Path, scratch: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All but the last days of a file; then these days, one after the other."""
    header, *lines = _read_lines(file)
    by_day = _split_by_day(header, lines)
    history = list(chain.from_iterable(by_day[:-DAYS_ADDED]))
    home, small = scratch / "years", scratch / "few"

    def run(where: Path, name: str, content: list[str]) -> dict[str, Any]:
        path = scratch / f"{name}.txt"
        path.write_text(header + "".join(content), newline="")
        whole = run_command(where, "run", path)
        status = read_status(where)
        return whole | {"step_seconds": step_seconds(status), "steps": status["steps"], "readings": len(content)}

    say(f"{len(history):,} readings of {file.name} ...")
    whole = run(home, "history", history)
    say(f"{DAYS_ADDED} days more, one after the other ...")
    added = [run(home, f"day_{number}", day) for number, day in enumerate(by_day[-DAYS_ADDED:])]
    say("the same steps with hardly any data ...")
    # two days of one meter, so that every model has rows; then a reading at a time
    some = [line for day in by_day[:3] for line in day if _meter(line) == _meter(by_day[0][0])]
    few = run(small, "few", some[:-DAYS_ADDED])
    few_added = [run(small, f"few_{number}", [line]) for number, line in enumerate(some[-DAYS_ADDED:])]
    say("everything whole again (--full-refresh) ...")
    refreshed = run_command(home, "run", "--full-refresh")
    day, fixed_day = (statistics.median(one["step_seconds"] for one in runs) for runs in (added, few_added))
    data_whole, data_day = whole["step_seconds"] - few["step_seconds"], day - fixed_day
    return {
        "file": file.name,
        "whole": whole,
        "added": added,
        "few": few,
        "few_added": few_added,
        "full_refresh": refreshed,
        "data_dependent_seconds": {"whole": data_whole, "day": data_day},
        "day_to_whole_ratio": data_day / data_whole,
    }


def _read_lines(file: Path) -> list[str]:
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            (name,) = (one for one in archive.namelist() if one.endswith((".txt", ".csv")))
            text = io.TextIOWrapper(archive.open(name), newline="").read()
    else:
        text = file.read_text()
    return text.splitlines(keepends=True)


def _split_by_day(header: str, lines: list[str]) -> list[list[str]]:
    """The lines of each day, in the order in which days first appear."""
    names = re.split("[,;]", header.strip().lower())
    place = next(number for number, name in enumerate(names) if name in {"date", "timestamp"})
    days: dict[str, list[str]] = {}
    for line in lines:
        days.setdefault(re.split("[,;]", line, maxsplit=place + 1)[place].split(" ")[0], []).append(line)
    return list(days.values())


def _meter(line: str) -> str:
    """The meter of a line in the long format; the same for all lines of a household, which name none."""
    return line.split(",")[0] if "," in line else ""


def tables(figures: dict[str, Any]) -> list[Table]:
    """The steps of both sides, and the ratio."""
    steps = Table(
        title=f"A day added to {figures['whole']['readings']:,} readings of {figures['file']}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    steps.add_column("step")
    for heading in ("rows, all", "s, all", "rows, a day", "s, a day", "s, hardly any data"):
        steps.add_column(heading, justify="right")
    added = sorted(figures["added"], key=lambda one: one["step_seconds"])[DAYS_ADDED // 2]
    few = sorted(figures["few_added"], key=lambda one: one["step_seconds"])[DAYS_ADDED // 2]
    for whole, day, least in zip(figures["whole"]["steps"], added["steps"], few["steps"], strict=True):
        steps.add_row(
            whole["name"],
            f"{_rows(whole):,}",
            f"{whole['seconds']:.1f}",
            f"{_rows(day):,}",
            f"{day['seconds']:.2f}",
            f"{least['seconds']:.2f}",
        )
    steps.add_row(
        "all steps",
        "",
        f"{figures['whole']['step_seconds']:.1f}",
        "",
        f"{added['step_seconds']:.2f}",
        f"{few['step_seconds']:.2f}",
    )
    steps.add_row(
        "the whole command",
        "",
        f"{figures['whole']['seconds']:.1f}",
        "",
        f"{added['seconds']:.2f}",
        f"{few['seconds']:.2f}",
    )
    seconds = figures["data_dependent_seconds"]
    ratio = Table(box=box.SIMPLE_HEAD)
    for heading in ("what", "measured", "promise"):
        ratio.add_column(heading)
    ratio.add_row(
        "data-dependent time, a day / all",
        f"{seconds['day']:.2f} s / {seconds['whole']:.1f} s = {figures['day_to_whole_ratio']:.1%}",
        "at most 5 %",
    )
    return [steps, ratio]


def _rows(step: dict[str, Any]) -> int:
    return max(step["rows_in"] or 0, step["rows_out"] or 0)
