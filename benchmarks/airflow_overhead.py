"""What Airflow adds: the same files by `energy-iot run` and by the daily DAG on a running Airflow, in new homes."""

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.measuring import read_status, run_command, step_seconds
from tests.live_server import serving


def measure(file: Path, scratch: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """First the command, then the DAG, the time that Airflow takes to start left out; then nothing new to both."""
    plain, orchestrated = scratch / "plain", scratch / "orchestrated"
    say(f"energy-iot run {file.name} ...")
    command = _with_steps(plain, run_command(plain, "run", file)["seconds"])
    command_again = run_command(plain, "run", file)["seconds"]
    say("the daily DAG on the same file ...")
    start = monotonic()
    with serving(orchestrated, "airflow"):
        start_seconds = round(monotonic() - start, 3)
        dag = _with_steps(orchestrated, run_command(orchestrated, "trigger", file)["seconds"])
        dag_again = run_command(orchestrated, "trigger", file)["seconds"]
    return {
        "file": file.name,
        "airflow_start_seconds": start_seconds,
        "command": command | {"again_seconds": command_again},
        "dag": dag | {"again_seconds": dag_again},
        "overhead_seconds": round(dag["seconds"] - command["seconds"], 3),
    }


def _with_steps(home: Path, seconds: float) -> dict[str, Any]:
    status = read_status(home)
    return {"seconds": seconds, "step_seconds": round(step_seconds(status), 3), "steps": status["steps"]}


def tables(figures: dict[str, Any]) -> list[Table]:
    """Step by step, and what lies between the steps."""
    table = Table(
        title=f"{figures['file']}: energy-iot run, and the daily DAG", box=box.SIMPLE_HEAD, title_justify="left"
    )
    table.add_column("step")
    for heading in ("s, run", "s, DAG"):
        table.add_column(heading, justify="right")
    command, dag = figures["command"], figures["dag"]
    for one, other in zip(command["steps"], dag["steps"], strict=True):
        table.add_row(one["name"], f"{one['seconds']:.1f}", f"{other['seconds']:.1f}")
    for name, key in (("all steps", "step_seconds"), ("from request to end", "seconds"), ("again", "again_seconds")):
        table.add_row(name, f"{command[key]:.1f}", f"{dag[key]:.1f}")
    table.caption = (
        f"Airflow adds {figures['overhead_seconds']:.1f} s; it was ready {figures['airflow_start_seconds']:.0f} s "
        "after its start"
    )
    return [table]
