"""Measure the pipeline, both sides of each comparison in one run, and write the figures as JSON.

    make bench                              every case, on data/raw/household_power_consumption.zip if it is there,
                                            else on a generated fleet with as many readings
    make bench BENCH="--only day growth"    some cases
    make bench BENCH=readings.csv           on a file of yours

Machines are shared and noisy: compare ratios, not seconds of different days.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks import added_day, airflow_overhead, dashboard_queries, growth, whole_run
from energy_iot.orchestration import airflow_servers
from energy_iot.serving import superset_server
from energy_iot.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
UCI_FILE = ROOT / "data" / "raw" / "household_power_consumption.zip"
CASES = ("whole", "day", "growth", "airflow", "dashboards")


def main() -> None:
    """Measure, print and store."""
    missing = {"airflow"} if not airflow_servers.is_installed() else set()
    missing |= {"dashboards"} if not superset_server.is_installed(load_settings()) else set()
    parser = argparse.ArgumentParser(description="Measure the pipeline.")
    parser.add_argument("file", nargs="?", type=Path, help="readings to run on")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CASES,
        default=[case for case in CASES if case not in missing],
        help="cases to measure; two of them need `make install-airflow install-superset`",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the JSON")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    figures: dict[str, Any] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "python": platform.python_version(),
            "system": platform.platform(terse=True),
        },
    }
    with tempfile.TemporaryDirectory(prefix="energy-iot-bench-") as folder:
        scratch = Path(folder)
        if set(options.only) - {"growth"}:
            file = options.file or (UCI_FILE if UCI_FILE.exists() else _fleet(scratch))
        if "whole" in options.only:
            figures["whole"] = whole_run.measure(file, scratch, console.print)
            console.print(*whole_run.tables(figures["whole"]))
        if "day" in options.only:
            figures["day"] = added_day.measure(file, scratch, console.print)
            console.print(*added_day.tables(figures["day"]))
        if "growth" in options.only:
            figures["growth"] = growth.measure(scratch, console.print)
            console.print(*growth.tables(figures["growth"]))
        if "airflow" in options.only:
            figures["airflow"] = airflow_overhead.measure(file, scratch, console.print)
            console.print(*airflow_overhead.tables(figures["airflow"]))
        if "dashboards" in options.only:
            figures["dashboards"] = dashboard_queries.measure(file, scratch, console.print)
            console.print(*dashboard_queries.tables(figures["dashboards"]))
    options.out.mkdir(parents=True, exist_ok=True)
    written = options.out / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    written.write_text(json.dumps(figures, indent=2))
    console.print(f"written to {written.relative_to(ROOT) if written.is_relative_to(ROOT) else written}")


def _fleet(scratch: Path) -> Path:
    from energy_iot.simulation.fleet import generate

    # half-hours: about as many readings
    return generate(scratch / "fleet", meters=490, days=90, seed=1).readings


if __name__ == "__main__":
    main()
