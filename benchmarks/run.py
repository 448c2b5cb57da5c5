"""Measure the pipeline, both sides of each comparison in one run, and write the figures as JSON.

    make bench                      on data/raw/household_power_consumption.zip if it is there,
                                    else on a generated one-minute household of the same size
    make bench BENCH=readings.csv   on a file of yours

Machines are shared and noisy: compare ratios, not seconds of different days.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from energy_iot.settings import Settings, load_settings
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.storage.postgres import Postgres, open_postgres

ROOT = Path(__file__).resolve().parents[1]
UCI_FILE = ROOT / "data" / "raw" / "household_power_consumption.zip"
UCI_MINUTES = 2_075_259
REPEATS = 7

DAILY_AGGREGATE = {  # the same question in each engine's words
    "PostgreSQL": "select cast(reading_timestamp as date), avg(active_power_kw), sum(consumption_kwh) "
    "from marts.mart_anomaly_scores group by 1 order by 1",
    "ClickHouse": "select reading_date, avg(active_power_kw), sum(consumption_kwh) "
    "from anomaly_scores group by reading_date order by reading_date",
}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description="Measure the pipeline.")
    parser.add_argument("file", nargs="?", type=Path, help="readings to run on")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the JSON")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory(prefix="energy-iot-bench-") as scratch:
        file = options.file or (UCI_FILE if UCI_FILE.exists() else _household(Path(scratch)))
        figures = measure(file, Path(scratch), console.print)
    console.print(_steps_table(figures), _comparison_table(figures))
    options.out.mkdir(parents=True, exist_ok=True)
    written = options.out / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    written.write_text(json.dumps(figures, indent=2))
    console.print(f"written to {written.relative_to(ROOT) if written.is_relative_to(ROOT) else written}")


def measure(file: Path, scratch: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures on one file: whole run, ingestion against COPY, daily aggregates on both engines."""
    say(f"whole run on {file.name} ...")
    home = scratch / "home"
    run = _command(home, "run", file)
    steps = _status(home)["steps"]
    rows = _status(home)["rows"]
    say("the same file again: nothing is new ...")
    again = _command(home, "run", file)
    say("ingestion alone, in a fresh home ...")
    ingest_home = scratch / "ingest"
    ingest = _command(ingest_home, "ingest", file)
    ingest_step = next(step for step in _status(ingest_home)["steps"] if step["name"] == "ingest_data")
    say("a bare COPY of the same rows ...")
    with open_postgres(load_settings(home=ingest_home)) as postgres:
        copy_seconds = _bare_copy(postgres, scratch / "rows.csv")
    say(f"daily aggregates, {REPEATS} times on each engine ...")
    daily = _daily_aggregates(load_settings(home=home))
    help_seconds = min(_command(home, "--help")["seconds"] for _ in range(5))
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "python": platform.python_version(),
            "system": platform.platform(terse=True),
        },
        "file": {"name": file.name, "bytes": file.stat().st_size},
        "rows": rows,
        "steps": steps,
        "run": run,
        "run_again": again,
        "ingest": ingest | {"step_seconds": ingest_step["seconds"]},
        "bare_copy_seconds": copy_seconds,
        "ingest_to_copy_ratio": ingest_step["seconds"] / copy_seconds,
        "daily_aggregate_seconds": daily,
        "postgres_to_clickhouse_ratio": daily["PostgreSQL"] / daily["ClickHouse"],
        "help_seconds": help_seconds,
    }


def _household(scratch: Path) -> Path:
    """One household, each minute, as many rows as the UCI file."""
    from energy_iot.simulation.fleet import generate

    days = -(-UCI_MINUTES // (24 * 60))
    return generate(scratch / "household", meters=1, days=days, seed=1, interval_minutes=1).readings


def _command(home: Path, *arguments: object) -> dict[str, float]:
    """Run energy-iot in a process of its own: wall-clock seconds, and the peak memory of that process in MB."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "energy_iot", "--home", str(home), "--quiet", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"energy-iot {arguments[0]} ended with exit code {process.returncode}")
    per_mb = 1024**2 if sys.platform == "darwin" else 1024  # Linux counts kB, macOS bytes
    return {"seconds": round(time.monotonic() - start, 3), "peak_memory_mb": round(usage.ru_maxrss / per_mb)}


def _status(home: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "energy_iot", "--home", str(home), "status", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(done.stdout))


def _bare_copy(postgres: Postgres, rows: Path) -> float:
    """Seconds to COPY the loaded rows from a text file into a table with the same columns and key."""
    columns = (
        "meter_id, timestamp, electricity_consumed, temperature, humidity, wind_speed, avg_past_consumption, voltage, "
        "sub_metering_1, sub_metering_2, sub_metering_3, anomaly_label, ingested_at, source_file, file_id"
    )
    with postgres.connect() as connection, connection.cursor() as cursor:
        with (
            rows.open("wb") as file,
            cursor.copy(
                f"copy (select {columns} from raw_data.meter_readings order by id) to stdout (format csv)"
            ) as out,
        ):
            for data in out:
                file.write(data)
        cursor.execute("create table raw_data.bare (like raw_data.meter_readings including all)")
        connection.commit()
        start = time.monotonic()
        with rows.open("rb") as file, cursor.copy(f"copy raw_data.bare ({columns}) from stdin (format csv)") as into:
            while data := file.read(1 << 20):
                into.write(data)
        connection.commit()
        return round(time.monotonic() - start, 3)


def _daily_aggregates(settings: Settings) -> dict[str, float]:
    """Median seconds of the same question on both engines, first runs left out."""
    with open_postgres(settings) as postgres, postgres.connect() as connection, open_clickhouse(settings) as clickhouse:
        ask: dict[str, Callable[[], int]] = {
            "PostgreSQL": lambda: len(connection.execute(DAILY_AGGREGATE["PostgreSQL"]).fetchall()),
            "ClickHouse": lambda: len(clickhouse.query(DAILY_AGGREGATE["ClickHouse"]).result_rows),
        }
        if len({question() for question in ask.values()}) != 1:
            raise SystemExit("the engines disagree on the number of days")
        seconds: dict[str, list[float]] = {engine: [] for engine in ask}
        for _ in range(REPEATS):
            for engine, question in ask.items():
                start = time.monotonic()
                question()
                seconds[engine].append(time.monotonic() - start)
    return {engine: round(statistics.median(times), 5) for engine, times in seconds.items()}


def _steps_table(figures: dict[str, Any]) -> Table:
    table = Table(
        title=f"Steps of the whole run on {figures['file']['name']}", box=box.SIMPLE_HEAD, title_justify="left"
    )
    table.add_column("step")
    for heading in ("rows", "seconds", "rows/s"):
        table.add_column(heading, justify="right")
    for step in figures["steps"]:
        rows = max(step["rows_in"] or 0, step["rows_out"] or 0)
        table.add_row(step["name"], f"{rows:,}", f"{step['seconds']:.1f}", f"{rows / max(step['seconds'], 1e-3):,.0f}")
    run = figures["run"]
    table.add_row(
        "whole run",
        f"{figures['rows']['raw']:,}",
        f"{run['seconds']:.1f}",
        f"{figures['rows']['raw'] / run['seconds']:,.0f}",
    )
    return table


def _comparison_table(figures: dict[str, Any]) -> Table:
    daily = figures["daily_aggregate_seconds"]
    table = Table(title="Against what we promise", box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("what", "measured", "promise"):
        table.add_column(heading)
    rows = [
        ("whole run, s (2 M rows, 2 cores)", f"{figures['run']['seconds']:.1f}", "at most 120, aim 60"),
        ("its Python's peak memory, MB", f"{figures['run']['peak_memory_mb']:,}", "at most 2,048"),
        ("ingestion's peak memory, MB", f"{figures['ingest']['peak_memory_mb']:,}", "at most 500"),
        (
            "ingestion / bare COPY",
            f"{figures['ingest']['step_seconds']:.1f} s / {figures['bare_copy_seconds']:.1f} s "
            f"= {figures['ingest_to_copy_ratio']:.2f}",
            "at most 2",
        ),
        (
            "daily aggregate, PostgreSQL / ClickHouse",
            f"{daily['PostgreSQL']:.3f} s / {daily['ClickHouse']:.4f} s "
            f"= {figures['postgres_to_clickhouse_ratio']:.1f}",
            "at least 10",
        ),
        ("the same file again, s", f"{figures['run_again']['seconds']:.1f}", ""),
        ("energy-iot --help, s", f"{figures['help_seconds']:.2f}", "under 1"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    main()
