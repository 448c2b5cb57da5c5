"""Whole runs on fleets of 1, 2, 4 and 8 million readings: time per reading and memory should not grow."""

from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.measuring import read_status, run_command, step_seconds

METERS_A_MILLION = 240  # with half-hours over DAYS, some of them missing
DAYS = 90
MILLIONS = (1, 2, 4, 8)


def measure(scratch: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """One whole run for each size, each in a fresh home."""
    from energy_iot.simulation.fleet import generate

    few = _run(scratch, generate(scratch / "few", meters=2, days=2, seed=1).readings, say)
    sizes = []
    for millions in MILLIONS:
        made = generate(scratch / f"fleet_{millions}", meters=METERS_A_MILLION * millions, days=DAYS, seed=1)
        sizes.append(_run(scratch, made.readings, say))
        made.readings.unlink()
    for size in sizes:
        size["data_dependent_us_per_reading"] = (size["step_seconds"] - few["step_seconds"]) / size["readings"] * 1e6
    per_reading = [size["data_dependent_us_per_reading"] for size in sizes]
    return {"few": few, "sizes": sizes, "largest_to_smallest_us": max(per_reading) / min(per_reading)}


def _run(scratch: Path, file: Path, say: Callable[[str], None]) -> dict[str, Any]:
    home = scratch / "growth_home"
    say(f"whole run on {file.parent.name} ...")
    figures = run_command(home, "run", file)
    status = read_status(home)
    rmtree(home)
    return figures | {
        "step_seconds": step_seconds(status),
        "steps": status["steps"],
        "readings": status["rows"]["raw"],
    }


def tables(figures: dict[str, Any]) -> list[Table]:
    """One row a size."""
    table = Table(
        title="Whole runs on growing fleets (time per reading: promise flat within 20 %)",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    for heading in (
        "readings",
        "command, s",
        "steps, s",
        "data-dependent, us a reading",
        "Python, MB",
        "PostgreSQL, MB",
    ):
        table.add_column(heading, justify="right")
    for size in figures["sizes"]:
        table.add_row(
            f"{size['readings']:,}",
            f"{size['seconds']:.1f}",
            f"{size['step_seconds']:.1f}",
            f"{size['data_dependent_us_per_reading']:.1f}",
            f"{size['peak_memory_mb']:,}",
            f"{size['postgres_peak_memory_mb']:,}",
        )
    table.add_row("highest / lowest", "", "", f"{figures['largest_to_smallest_us']:.2f}", "", "")
    return [table]
