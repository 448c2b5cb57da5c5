"""One whole run, ingestion against a bare COPY, and daily aggregates on both engines."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.measuring import read_status, run_command
from energy_iot.settings import Settings, load_settings
from energy_iot.storage.clickhouse import open_clickhouse
from energy_iot.storage.postgres import Postgres, open_postgres

REPEATS = 7

DAILY_AGGREGATE = {  # the same question in each engine's words
    "PostgreSQL": "select cast(reading_timestamp as date), avg(active_power_kw), sum(consumption_kwh) "
    "from marts.mart_anomaly_scores group by 1 order by 1",
    "ClickHouse": "select reading_date, avg(active_power_kw), sum(consumption_kwh) "
    "from anomaly_scores group by reading_date order by reading_date",
}


def measure(file: Path, scratch: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures on one file: whole run, ingestion against COPY, daily aggregates on both engines."""
    say(f"whole run on {file.name} ...")
    home = scratch / "home"
    run = run_command(home, "run", file)
    steps = read_status(home)["steps"]
    rows = read_status(home)["rows"]
    say("the same file again: nothing is new ...")
    again = run_command(home, "run", file)
    say("ingestion alone, in a fresh home ...")
    ingest_home = scratch / "ingest"
    ingest = run_command(ingest_home, "ingest", file)
    ingest_step = next(step for step in read_status(ingest_home)["steps"] if step["name"] == "ingest_data")
    say("a bare COPY of the same rows ...")
    with open_postgres(load_settings(home=ingest_home)) as postgres:
        copy_seconds = _bare_copy(postgres, scratch / "rows.csv")
    say(f"daily aggregates, {REPEATS} times on each engine ...")
    daily = _daily_aggregates(load_settings(home=home))
    help_seconds = min(run_command(home, "--help")["seconds"] for _ in range(5))
    return {
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


def tables(figures: dict[str, Any]) -> list[Table]:
    """The steps, and what is promised."""
    return [_steps_table(figures), _comparison_table(figures)]


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
